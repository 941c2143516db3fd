"""`make services`: the brokers that tests need, installed from Debian where none answers and none can be started.

Run as root on Debian it installs what is missing; elsewhere it says what to install. Tests without their broker are
left out; with CI=true they fail.
"""

import os
import shutil
import subprocess
from urllib.parse import urlsplit

from tests.brokers import SERVERS
from tests.brokers.relay import answers
from tests.brokers.servers import PROGRAMS


def missing() -> list[str]:
    """Names of programs, which are names of Debian's packages too."""
    return [
        PROGRAMS[broker].name
        for broker, (_, url) in SERVERS.items()
        if not answers(urlsplit(url).hostname or "", urlsplit(url).port or 0) and PROGRAMS[broker].path() is None
    ]


def main() -> None:
    wanted = missing()
    if not wanted:
        return
    if os.geteuid() == 0 and (apt := shutil.which("apt-get")):
        print(f"installing {', '.join(wanted)} for the tests")
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *wanted]):
            subprocess.run([apt, *command], env=environ, check=False, stdout=subprocess.DEVNULL)
        wanted = missing()
    if wanted:
        print(f"tests that need them are left out: install {' and '.join(wanted)} (apt-get install {' '.join(wanted)})")


if __name__ == "__main__":
    main()
