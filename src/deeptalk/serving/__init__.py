"""The model behind a socket: one model thread, OpenAI's Realtime protocol and OpenAI's HTTP routes."""
