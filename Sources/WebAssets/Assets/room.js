/**
 * Whether a server may take it for a room: 1–128 of `A-Z a-z 0-9 _ . : @ / -`, or `dm:` and two percent-encoded names.
 * @param {string} name
 */
export function isRoomName(name) {
  if (name.startsWith("dm:")) return /^dm(:([\w.@/-]|%[0-9A-F]{2})+){2}$/.test(name);
  return /^[\w.:@/-]{1,128}$/.test(name);
}

/**
 * One room as this client has it: which message was the last one delivered and what waits for its predecessors, who is
 * there, and who types. It has no socket and no clock; times are milliseconds and given.
 */
export class Room {
  // What the user wants, and what was asked of the server on this connection.
  wanted = false;
  joined = false;
  joinID = null;
  retryAt = 0;
  typedAt = 0;

  // The order. `epoch` is null before the first join; `turns` counts how often the room began to count anew.
  epoch = null;
  seq = 0;
  tag;
  turns = 0;
  held = new Map(); // seq → message that came before its predecessors
  target = 0; // what the server said will follow, up to this seq
  holeSince = 0; // when something began to be missing; Infinity while it is being asked for

  // The people.
  members = new Map();
  count = 0;
  pv = 0;
  listedAt = 0;
  typing = new Map(); // user → until when

  constructor(name) {
    this.name = name;
  }

  /** The last delivered message, for a join. */
  get since() {
    return this.epoch ? { epoch: this.epoch, seq: this.seq, tag: this.tag } : undefined;
  }

  disconnected() {
    Object.assign(this, { joined: false, joinID: null, retryAt: 0, pv: 0 });
  }

  /** @returns {"first"|"resumed"|"turned"} "turned": Redis forgot what was seen here */
  enter({ epoch, seq, tag, recovered }, now) {
    this.joined = true;
    const first = this.epoch === null;
    if (first || (!recovered && (epoch !== this.epoch || seq < this.seq))) {
      this.#turn(epoch, seq, tag);
      return first ? "first" : "turned";
    }
    // The missed messages follow as `message` frames, or a `gap` says which do not.
    if (seq > this.seq) Object.assign(this, { target: seq, holeSince: now });
    return "resumed";
  }

  /** What was promised, held, asked for, or known of the members is of the time before. */
  #turn(epoch, seq, tag) {
    Object.assign(this, { epoch, seq, tag, holeSince: 0, target: 0, pv: 0, turns: this.turns + 1 });
    this.held.clear();
  }

  /** What is up to `to` is lost. @returns {{isNew: boolean, turned: boolean}} */
  skip({ epoch = this.epoch, to }) {
    const turned = epoch !== this.epoch;
    const isNew = turned || to > this.seq;
    if (turned) this.#turn(epoch, to);
    else if (isNew) Object.assign(this, { seq: to, tag: undefined });
    return { isNew, turned };
  }

  hold(message) {
    if (message.seq > this.seq) this.held.set(message.seq, message);
  }

  /** The held messages whose turn it is, in order. */
  take(now) {
    const due = [];
    for (let next; (next = this.held.get(this.seq + 1)); due.push(next)) {
      Object.assign(this, { seq: next.seq, tag: next.tag, holeSince: 0 });
      this.held.delete(next.seq);
    }
    for (const seq of this.held.keys()) if (seq <= this.seq) this.held.delete(seq);
    if (this.seq >= this.target) this.target = 0;
    this.holeSince = this.held.size || this.target ? this.holeSince || now : 0;
    return due;
  }

  /** The last `seq` that is missing for good, when the history has only `found` of what is missing; 0 when none is. */
  lostUpTo(found) {
    const end = Math.min(this.target || Infinity, ...[...this.held.keys()].map((seq) => seq - 1));
    const last = found.length ? found[0].seq - 1 : end;
    return last > this.seq && last < Infinity ? last : 0;
  }

  /** The whole list, whatever was known. */
  list({ members = [], count = members.length, pv = 0 }, now) {
    this.members = new Map(members.map((member) => [member.user, member]));
    Object.assign(this, { count, pv, listedAt: now });
  }

  /** @returns {"old"|"applied"|"hole"} "hole": an earlier event is missing */
  change({ joined = [], left = [], updated = [], count, pv }) {
    if (pv <= this.pv) return "old";
    const changes = joined.length + left.length + updated.length;
    const hole = changes > 0 && pv - changes > this.pv;
    for (const member of [...joined, ...updated]) this.members.set(member.user, member);
    for (const { user } of left) this.members.delete(user);
    Object.assign(this, { pv, count });
    return hole ? "hole" : "applied";
  }

  /** @returns {boolean} whether somebody's typing ended */
  endTyping(isOver) {
    const ended = [...this.typing].filter(([, until]) => isOver(until));
    for (const [user] of ended) this.typing.delete(user);
    return ended.length > 0;
  }
}
