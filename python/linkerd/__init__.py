"""A service mesh and its debugging toolkit.

The one place of the version: the command line, the control plane, the image tags and the manifests read it here.
"""

PACKAGE_VERSION = "0.1.0"
VERSION = f"stable-{PACKAGE_VERSION}"
