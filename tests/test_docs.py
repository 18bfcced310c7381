"""What the documents say is what the program does."""

import dataclasses
import re
from pathlib import Path

import pytest

from extauth import plugins
from extauth.model import Reason
from extauth.settings import Daemon, Domain, load

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_annotated_configuration_is_usable() -> None:
    settings = load(ROOT / "config/extauth.toml", plugins.InstalledKinds())
    assert set(settings.domains) == {"example.com"}


def test_the_annotated_configuration_shows_the_defaults() -> None:
    settings = load(ROOT / "config/extauth.toml", plugins.InstalledKinds())
    assert settings.daemon == Daemon()
    assert settings.domains["example.com"] == Domain(backends=("local",))
    for listener in settings.listeners:
        assert dataclasses.replace(listener.config, group=None) == type(listener.config)()
    assert settings.backends["local"].config == plugins.backend("local").Config()


def test_every_reason_has_its_section() -> None:
    sections = re.findall(r"^## (\S+)$", (ROOT / "docs/reasons.md").read_text(), re.MULTILINE)
    assert sections == [reason.value for reason in Reason]


def test_every_key_is_in_the_configuration_page() -> None:
    page = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("configuration", "local", "ldap"))
    documented = set(re.findall(r"`(\w+)`", page))
    configs = [Daemon, Domain, plugins.backend("local").Config, plugins.backend("ldap").Config]
    configs += [plugins.listener(protocol).Config for protocol in ("ejabberd", "prosody", "dovecot", "saslauthd", "admin")]
    keys = {field.name for config in configs for field in dataclasses.fields(config)}
    assert keys <= documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
