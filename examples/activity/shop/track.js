// Tells the collector what happens on the page. Before the visitor agrees nothing is kept and nothing is sent;
// afterwards events wait in a bounded queue and go in batches. What the collector cannot take now (429, 503, or
// nobody there) goes again later, with the same ids. What it will never take (400, 413) is dropped.

const EVENTS_PER_REQUEST = 50;
const QUEUE_MAX = 500;
const SEND_EVERY_MS = 1000;
const WAIT_MAX_S = 30;

export class Tracker {
  granted = false;
  dropped = 0;
  #queue = [];
  #onItsWay = 0;
  #waitUntil = 0;
  #failures = 0;
  #page;

  constructor(page) {
    this.#page = page; // gives the path of the page that is shown
    setInterval(() => this.send(), SEND_EVERY_MS);
    // A page may be gone for good whenever it is hidden: there is no later event that one can rely on.
    document.addEventListener('visibilitychange', () => document.visibilityState === 'hidden' && this.#leave());
    addEventListener('pagehide', () => this.#leave());
  }

  async start() {
    const answer = await fetch('consent');
    this.granted = !navigator.globalPrivacyControl && (await answer.json()).granted;
    return this.granted;
  }

  async decide(granted) {
    if (!granted) this.#forget();
    const answer = await fetch('consent', this.#request({ granted }));
    this.granted = answer.ok && granted;
  }

  track(type, fields = {}) {
    if (!this.granted) return;
    this.#queue.push({ type, id: crypto.randomUUID(), at_ms: Date.now(), page: this.#page(), ...fields });
    while (this.#queue.length > QUEUE_MAX) {
      // The oldest that is not on its way already.
      this.#queue.splice(this.#onItsWay, 1);
      this.dropped += 1;
    }
  }

  pending() {
    return this.#queue.length;
  }

  async send() {
    if (!this.granted || this.#onItsWay || !this.#queue.length || Date.now() < this.#waitUntil) return;
    const events = this.#queue.slice(0, EVENTS_PER_REQUEST);
    this.#onItsWay = events.length;
    let status = 0;
    let retryAfter = 0;
    try {
      const answer = await fetch('events', { ...this.#request({ events }), keepalive: true });
      status = answer.status;
      retryAfter = Number(answer.headers.get('Retry-After')) || 0;
    } catch {
      // Nobody there, or no network.
    }
    const sent = this.#onItsWay;
    this.#onItsWay = 0;
    if (status === 403) {
      this.#forget();
    } else if (status === 0 || status === 429 || status >= 500) {
      this.#failures += 1;
      // Not all pages at the same moment.
      const wait = Math.max(retryAfter, Math.min(WAIT_MAX_S, 2 ** this.#failures / 2)) * (1 + Math.random() / 4);
      this.#waitUntil = Date.now() + wait * 1000;
    } else {
      if (status >= 400) this.dropped += sent;
      this.#failures = 0;
      this.#queue.splice(0, sent);
    }
  }

  #leave() {
    if (!this.granted) return;
    // What is on its way already has keepalive, and arrives as well.
    while (this.#queue.length > this.#onItsWay) {
      const events = this.#queue.slice(this.#onItsWay, this.#onItsWay + EVENTS_PER_REQUEST);
      const body = new Blob([JSON.stringify({ events })], { type: 'application/json' });
      if (!navigator.sendBeacon('events', body)) return;
      this.#queue.splice(this.#onItsWay, events.length);
    }
  }

  #forget() {
    this.granted = false;
    this.#queue = [];
    this.#onItsWay = 0;
  }

  #request(content) {
    return { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(content) };
  }
}
