import { avatar, dayKey, dayText, element, exactText, messageText, shortTimeText, timeText } from "/view.js";

const together = 5 * 60 * 1000; // messages of one sender within this time share one head
const kept = 600; // lines a window keeps; older ones are read again when they are scrolled to

/**
 * The lines of one room in the order of `seq`: each message once, own messages without an ack last, gaps where they are.
 */
export class Timeline {
  list = element("ol", { className: "messages" });
  #lines = []; // { order, kind, item, message }, sorted; order is Infinity for own messages without a seq
  #byOrder = new Map();
  #pending = new Map();
  #era = 0; // rises when the room counts from a new start
  #actions;

  /**
   * Messages are those of the client, with `own` for those of this user.
   * @param {{retry: (message: object) => void, discard: (message: object) => void}} actions
   */
  constructor(actions) {
    this.#actions = actions;
  }

  get length() {
    return this.#lines.length;
  }

  /** The first `seq` that a read of older messages has to end before. */
  get oldestSeq() {
    const start = this.#order(0);
    return this.#lines.find(({ kind, order }) => kind === "message" && order > start && order < Infinity)?.message.seq;
  }

  /** @returns the line when it is new here, undefined for one that stands already. */
  put(message, { arrived = false } = {}) {
    const order = this.#order(message.seq);
    const pending = message.id !== undefined && message.own ? this.#pending.get(message.id) : undefined;
    if (pending) this.#remove(pending);
    if (this.#byOrder.has(order)) return undefined;
    const line = { order, kind: "message", message, item: this.#messageItem(message) };
    if (arrived && !pending) line.item.classList.add("arrived");
    this.#byOrder.set(order, line);
    this.#insert(line);
    for (const other of this.#lines.filter(({ kind }) => kind === "gap")) {
      if (order >= other.gap.from && order <= other.gap.to) this.#sayGap(other);
    }
    return line;
  }

  putPending(message) {
    const line = { order: Infinity, kind: "message", message, item: this.#messageItem(message) };
    line.item.classList.add("pending");
    this.#pending.set(message.id, line);
    this.#insert(line);
    return line;
  }

  /** Says of own messages without an ack whether they are on their way or wait for the connection. */
  sayPending(text) {
    for (const { item } of this.#pending.values()) {
      if (item.classList.contains("pending")) item.querySelector(".fate").textContent = text;
    }
  }

  /** What became of an own message: an acknowledged one goes to its place, where it may stand already. */
  settle({ id, status, error, seq, ts }) {
    const line = this.#pending.get(id);
    if (!line) return;
    if (status === "acked") return void this.put({ ...line.message, seq, ts });
    line.item.classList.remove("pending");
    line.item.classList.add("failed");
    const reason = status === "unknown" ? "It is not known whether this was sent." : `Not sent: ${error?.message ?? status}.`;
    const again = element("button", { type: "button", textContent: status === "unknown" ? "Send again" : "Retry" });
    const drop = element("button", { type: "button", textContent: "Remove" });
    again.onclick = () => {
      this.#remove(line);
      this.#actions.retry(line.message);
    };
    drop.onclick = () => {
      this.#remove(line);
      this.#actions.discard(line.message);
    };
    line.item.querySelector(".fate").replaceChildren(reason, again, drop);
  }

  /** A line where messages are missing; it goes when they are found after all. */
  putGap({ from = 1, to, turned }) {
    if (turned) this.#era += 1;
    const gap = { from: this.#order(from), to: this.#order(to), isTurn: turned };
    const line = { order: gap.from - 0.5, kind: "gap", item: element("li", { className: "gap" }), message: null, gap };
    this.#insert(line);
    this.#sayGap(line);
  }

  #sayGap(line) {
    const { from, to, isTurn } = line.gap;
    const found = this.#lines.filter(({ order }) => order >= from && order <= to).length;
    const count = to - from + 1 - found;
    if (count <= 0 && !isTurn) return this.#remove(line);
    const what = count === 1 ? "One message" : `${count} messages`;
    line.item.textContent = isTurn ? "The server lost a part of this room. It starts anew here." : `${what} could not be recovered here.`;
  }

  markNew(line) {
    this.list.querySelector(".divider.new")?.remove();
    if (!line) return this.#regroupAll();
    const divider = element("div", { className: "divider new", textContent: "New" });
    line.item.querySelector(".line").before(divider);
    this.#regroup(this.#lines.indexOf(line));
  }

  /** Lets go of the oldest lines. @returns whether there were any. */
  prune() {
    if (this.#lines.length <= kept + 100) return false;
    const old = this.#lines.splice(0, Math.min(this.#lines.length - kept, this.#lines.length - this.#pending.size));
    for (const { order, item } of old) {
      this.#byOrder.delete(order);
      item.remove();
    }
    this.#regroup(0);
    return true;
  }

  #order(seq) {
    return this.#era * 2 ** 40 + seq;
  }

  #insert(line) {
    let index = this.#lines.length;
    while (index > 0 && this.#lines[index - 1].order > line.order) index -= 1;
    const next = this.#lines[index];
    this.#lines.splice(index, 0, line);
    this.list.insertBefore(line.item, next?.item ?? null);
    this.#regroup(index);
    this.#regroup(index + 1);
  }

  #remove(line) {
    const index = this.#lines.indexOf(line);
    if (index < 0) return;
    this.#lines.splice(index, 1);
    this.#byOrder.delete(line.order);
    if (line.message?.id !== undefined && this.#pending.get(line.message.id) === line) this.#pending.delete(line.message.id);
    line.item.remove();
    this.#regroup(index);
  }

  #regroupAll() {
    for (let index = 0; index < this.#lines.length; index += 1) this.#regroup(index);
  }

  /** Decides, from the line before it, whether a line starts a day and whether it needs a head of its own. */
  #regroup(index) {
    const line = this.#lines[index];
    if (line?.kind !== "message") return;
    let before = index - 1;
    while (before >= 0 && this.#lines[before].kind !== "message") before -= 1;
    const last = this.#lines[before]?.message;
    const { item, message } = line;
    const newDay = !last || dayKey(last.ts) !== dayKey(message.ts);
    item.querySelector(".divider.day")?.remove();
    if (newDay) item.prepend(element("div", { className: "divider day", textContent: dayText(message.ts) }));
    const continued =
      !newDay && before === index - 1 && last.from === message.from && message.ts - last.ts < together &&
      !item.querySelector(".divider.new");
    item.classList.toggle("continued", continued);
  }

  #messageItem(message) {
    const { from, text, data, binary, ts, own } = message;
    const when = new Date(ts).toISOString();
    const head = element("div", { className: "head" }, element("span", { className: "who", textContent: from }));
    if (own) head.append(element("span", { className: "you", textContent: "you" }));
    head.append(element("time", { dateTime: when, title: exactText(ts), textContent: timeText(ts) }));
    const content = element("div", { className: "content" }, head);
    if (text !== undefined) content.append(messageText(text));
    if (data !== undefined) content.append(element("pre", { className: "data", textContent: JSON.stringify(data, null, 2) }));
    if (binary !== undefined) content.append(element("pre", { className: "data", textContent: `${atob(binary).length} bytes` }));
    content.append(element("div", { className: "fate" }));
    const gutter = element("time", { className: "gutter", dateTime: when, "aria-hidden": "true", textContent: shortTimeText(ts) });
    const line = element("div", { className: "line" }, gutter, avatar(from), content);
    const item = element("li", { className: own ? "own" : "" }, line);
    if (message.seq) item.dataset.seq = message.seq;
    return item;
  }
}
