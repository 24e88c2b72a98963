"""A loopback model server that plays recorded answers to the real agent CLIs: no key, no network, no paid model.

scenario.py        what is played: the models of a scenario file (pure)
scenario_file.py   scenario files: bundled ones by name, others by path; reading, writing, errors that name the field
asked.py           what a request asks for, as far as replay decides on it (pure)
playback.py        which answer comes next, per session, turn and tool round (pure, holds the state)
wire.py            an answer as the bytes of the Responses API's event stream (pure)
server.py          ReplayServer: HTTP around the four above
recording.py       an upstream's answers read back into a scenario (pure)
record.py          Recorder: the loopback proxy around recording.py
loopback.py        listening on a loopback address, and on nothing else
codex_home.py      a CODEX_HOME that points the codex CLI at such a server
demo_workspace.py  the small project that the bundled scenario `demo` works on
"""
