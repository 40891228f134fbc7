"""An FTP server that says what a test wants it to say, as servers do that are not installed here."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Sequence


class ScriptedFtp(socketserver.ThreadingTCPServer):
    """
    Listens on a free loopback port until it is closed.

    :param lines: of the listing of any folder.
    :param mlsd: whether the lines are those of MLSD; otherwise LIST's, and MLSD is not known.
    :param ended: how a listing is closed.
    :param replies: what is answered to a whole command line; ``CWD`` of anything else succeeds, the rest is refused.
    :param files: content by path.
    :param greeting: the first line; None says nothing at all.
    :param most: how many sessions are let in at once; others are told *full* after their password.
    :param at_the_door: tell it in place of the greeting.
    """

    daemon_threads = True

    def __init__(
        self,
        lines: Sequence[str],
        *,
        mlsd: bool = True,
        ended: str = "226 Done",
        replies: dict[str, str] | None = None,
        files: dict[str, bytes] | None = None,
        greeting: str | None = "220 Here",
        most: int = 1000,
        full: str = "",
        at_the_door: bool = False,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.lines, self.mlsd, self.ended = lines, mlsd, ended
        self.replies, self.files = replies or {}, files or {}
        self.greeting, self.most, self.full, self.at_the_door = greeting, most, full, at_the_door
        self.sessions = self.most_seen = self.turned_away = 0
        self.counting = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()


class _Conversation(socketserver.StreamRequestHandler):
    """One control connection."""

    server: ScriptedFtp
    data: socket.socket | None = None
    counted = False

    def handle(self) -> None:
        """Answer each command."""
        if self.server.at_the_door and not self._let_in():
            if self.server.full:
                self._say(self.server.full)
            return
        if self.server.greeting is not None:
            self._say(self.server.greeting)
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                if line.startswith(b"PASS") and not self.counted and not self._let_in():
                    self._say(self.server.full)
                    return
                self._answer(line.decode("utf-8", "surrogateescape").strip("\r\n"))
                if self.data is not None and not line.startswith(b"PASV"):
                    self.data.close()

    def finish(self) -> None:
        """Count one session less."""
        with self.server.counting:
            self.server.sessions -= self.counted
        super().finish()

    def _let_in(self) -> bool:
        script = self.server
        with script.counting:
            self.counted = script.sessions < script.most
            script.sessions += self.counted
            script.turned_away += not self.counted
            script.most_seen = max(script.most_seen, script.sessions)
        return self.counted

    def _say(self, words: str) -> None:
        self.wfile.write(words.encode() + b"\r\n")

    def _answer(self, line: str) -> None:
        word, _, path = line.partition(" ")
        script = self.server
        fixed = {"USER": "331 Password", "PASS": "230 In", "TYPE": "200 Yes", "NOOP": "200 Yes", "PWD": '257 "/"'}
        if line in script.replies:
            self._say(script.replies[line])
        elif word in fixed:
            self._say(fixed[word])
        elif word == "PASV":
            self.data = socket.create_server(("127.0.0.1", 0))
            port = self.data.getsockname()[1]
            self._say(f"227 Here (127,0,0,1,{port // 256},{port % 256})")
        elif "*" in path:
            self._say("550 No such file or directory")
        elif word == ("MLSD" if script.mlsd else "LIST"):
            self._send("".join(f"{one}\r\n" for one in script.lines).encode(), script.ended)
        elif word == "RETR" and path in script.files:
            self._send(script.files[path], "226 Done")
        elif word in ("MLSD", "MLST") and not script.mlsd:
            self._say("500 What?")
        elif word == "MLST" and (
            facts := [one for one in script.lines if one.partition(" ")[2] == path.rpartition("/")[2]]
        ):
            self._say(f"250-Here\r\n {facts[0]}\r\n250 End")
        elif word == "CWD":
            self._say("250 Yes")
        else:
            self._say("550 No such file or directory")

    def _send(self, content: bytes, ended: str) -> None:
        self._say("150 Coming")
        assert self.data is not None
        data, _ = self.data.accept()
        data.sendall(content)
        data.close()
        self._say(ended)
