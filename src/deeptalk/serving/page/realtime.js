/** One session of the Realtime protocol: events in and out over a WebSocket, and nothing of the page. */

const KEY_PROTOCOL = "openai-insecure-api-key.";

export class Realtime {
  onClose = () => {}; // ({code, reason, wasOpen}), once, unless closed from here

  #handlers = new Map();
  #socket;
  #wasOpen = false;

  /** Connect; throws a SyntaxError for a key that can't travel in a WebSocket's headers. */
  constructor(url, key) {
    this.#socket = new WebSocket(url, key ? ["realtime", KEY_PROTOCOL + key] : ["realtime"]);
    this.#socket.onopen = () => (this.#wasOpen = true);
    this.#socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.onClose({ code, reason, wasOpen: this.#wasOpen });
  }

  /** Have a kind of event handled; what nobody handles is passed over. */
  on(type, handler) {
    this.#handlers.set(type, handler);
    return this;
  }

  send(type, fields = {}) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, ...fields }));
  }

  close() {
    this.onClose = () => {};
    this.#handlers.clear();
    this.#socket.close(1000);
  }

  #take(event) {
    this.#handlers.get(event.type)?.(event);
  }
}
