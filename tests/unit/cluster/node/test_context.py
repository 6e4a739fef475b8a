from __future__ import annotations

from linkerd.cluster.node.context import mount_points

MOUNTINFO = (
    "36 35 98:0 / /plain rw - ext4 /dev/vda rw\n37 35 98:0 /a\\040b /with\\040blank\\134 rw shared:1 - tmpfs none rw\n"
)


def test_mount_points_are_unescaped() -> None:
    assert mount_points(MOUNTINFO) == ["/plain", "/with blank\\"]
