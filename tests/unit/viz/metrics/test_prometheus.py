import pytest
from linkerd.viz.metrics.prometheus import credentials, interval_from_config

CONFIG = """
global: {scrape_interval: 10s}
scrape_configs:
- job_name: linkerd-proxy
  scrape_interval: 5s
"""


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        (CONFIG, 5),
        (CONFIG.replace("  scrape_interval: 5s\n", ""), 10),
        ("", None),
        ("global: {scrape_interval: x}", None),
    ],
)
def test_the_proxies_own_scrape_interval_counts(config, seconds):
    assert interval_from_config(config) == seconds


def test_credentials_come_in_pairs(tmp_path):
    (tmp_path / "user").write_text("ada\n")
    (tmp_path / "password").write_text("secret\n")
    assert credentials(str(tmp_path / "user"), str(tmp_path / "password")) == ("ada", "secret")
    with pytest.raises(ValueError, match="go together"):
        credentials(str(tmp_path / "user"), "")
