/** The types of martlet.js: keep both files beside each other. */

/** What a server says no with, by number (docs/protocol.md). With `retry_ms` the same request may succeed later. */
export interface Errors {
  100: "malformed_json";
  101: "unknown_type";
  102: "invalid_field";
  103: "rate_limited";
  104: "too_large";
  105: "binary_not_supported";
  106: "not_authenticated";
  107: "identity_conflict";
  108: "invalid_room";
  109: "invalid_user";
  110: "too_many_rooms";
  111: "not_in_room";
  112: "id_reused";
  113: "unavailable";
  114: "storage_full";
  115: "authentication_failed";
  116: "forbidden";
  117: "text_not_supported";
  118: "malformed_protobuf";
  119: "unknown_namespace";
  120: "banned";
  121: "muted";
}

export interface Refusal {
  code?: keyof Errors;
  reason?: Errors[keyof Errors];
  /** For people. */
  message: string;
  retry_ms?: number;
}

export interface Options {
  /** `ws://host/ws` or `wss://host/ws`. In a page: that of the page's host. */
  url?: string;
  /** Believed by servers that run with `MARTLET_AUTH=none`. */
  user?: string;
  /**
   * Wins over `user`. A function is asked before each connect, and again in time before a token ends, so that the connection
   * goes on; one that fails is asked again after a while.
   */
  token?: string | (() => string | Promise<string>);
  /** Names this instance and scopes the ids of its messages, 1–64 of `A-Z a-z 0-9 _ . -`; a new one by default. */
  client?: string;
  /** The router's affinity key. */
  key?: string;
  /**
   * With a `token`, its user's name (`sub`) stands in the address as `key`, so that routers keep all clients of a user to one
   * node; unless `key` is given, `url` has a `key`, `user` or `token` in its query, or the token is no JWT. When false, routers
   * keep the client by cookie or address, but proxies on the way, which may log URLs, see no name. True by default.
   */
  keepsToNode?: boolean;
  status?: Status;
  /**
   * At each connect, asks the router where this client's node is (`GET …/locate` beside the path of `url`), and connects
   * there without the router, where nodes have addresses for clients (`MARTLET_NODE_URL`). Whatever fails on that way, within
   * 2 s for the question and 2 s for the node, the connection goes through the router. False by default.
   */
  locatesNode?: boolean;
  /** The WebSocket to use; by default the global one. */
  WebSocket?: typeof WebSocket;
}

/** "closed" until `connect()`; "waiting" after a loss, until the next attempt. */
export type State = "closed" | "connecting" | "online" | "waiting";
/** How one wants to be seen; who is "invisible" is neither listed nor counted. */
export type Status = "online" | "away" | "busy" | "invisible";

export interface Message {
  room: string;
  /** The place in the room's one order: 1, 2, 3 … */
  seq: number;
  from: string;
  /** Of a private room, which turns with it. */
  epoch?: string;
  /** The other one of a direct message. */
  to?: string;
  text?: string;
  data?: unknown;
  /** Bytes in base64. */
  binary?: string;
  /** Milliseconds since 1970, by the server's clock. */
  ts: number;
  /** The sender's id of it; only in messages of this user. */
  id?: string;
  tag?: string;
  /** Whether this client's user said it, here or elsewhere. */
  own: boolean;
}

export interface Member {
  user: string;
  /** "online" where it is left out. */
  status?: Exclude<Status, "invisible">;
  info?: Record<string, unknown>;
}

export type Fate = "acked" | "failed" | "unknown";

export interface Stored {
  room: string;
  seq: number;
  ts: number;
}

export interface Sent {
  id: string;
  /**
   * Rejects with an Error that has the `status` "failed" (it was not stored) or "unknown" (it was sent, no ack came for
   * two minutes or until `close()`, and it may be stored). Who does not look at it has the event `sent`.
   */
  done: Promise<Stored>;
}

/** What stands in `detail` of each event. */
export interface Events {
  /** `retryAt` is when "waiting" ends; `code` and `reason` say why a connection ended (docs/protocol.md). */
  state: { state: State; attempt?: number; retryAt?: number; code?: number; reason?: string };
  /** `recovered`: what was missed follows; `first`: the room was not known before. */
  joined: { room: string; recovered?: boolean; first: boolean };
  /** The server took this client out. */
  left: { room: string; reason?: string };
  /** Each message of a room once and in the order of `seq`, own ones too. */
  message: Message;
  /**
   * `from`…`to` are lost. `turned`: the room counts from a new start, so an equal `seq` is another message; then `from`
   * may be missing.
   */
  gap: { room: string; from?: number; to: number; turned: boolean };
  /** The newest messages, behind a `gap` that a reconnect met. */
  page: { room: string; messages: Omit<Message, "room" | "own">[]; more: boolean };
  /**
   * What became of an own message. `room` is missing where a direct message failed. One that is "acked" behind a `gap`
   * which has its `seq` brings no `message`.
   */
  sent: { room?: string; id: string; status: Fate; seq?: number; ts?: number; error?: Refusal };
  /** Who is in a room: at most 100 of `count`. */
  presence: { room: string; members: Member[]; count: number };
  /** Who is typing, without this user. */
  typing: { room: string; users: string[] };
  /**
   * The token ends in `left` milliseconds. With a `token` that is a function nothing is to be done; with a string the
   * connection ends with it, and the client with the code 4201: make another one with a new token.
   */
  expiring: { left: number };
  /** `refused` lists the rooms that this client is not in because of it. */
  error: Refusal & { room?: string; refused: string[] };
}

/**
 * A client of a Martlet cluster. It reconnects by itself and takes up each room after the last message it has seen:
 * each message once and in order. An unacknowledged message is sent again under the same id, so it is stored once.
 */
export class Martlet extends EventTarget {
  constructor(options?: Options);

  state: State;
  /** From the last `welcome`: the serving node, this session, the user name and the server's limits (0: none). */
  node: string | undefined;
  session: string | undefined;
  user: string | undefined;
  limits: { message_bytes?: number; messages_per_second?: number; rooms?: number };
  /** The last round trip in milliseconds. */
  rtt: number | undefined;
  /** Bytes of own messages without an ack. */
  readonly bufferedAmount: number;

  connect(): void;
  /** Own messages without an ack fail, or are unknown if they were sent. `connect()` starts again, in the same rooms. */
  close(): void;
  /** Does not wait for the backoff. */
  retryNow(): void;

  /** @throws RangeError with the `code` 108 when this is no room name: see `isRoomName` */
  join(room: string): void;
  /** Own messages without an ack end as in `close()`. */
  leave(room: string): void;
  /**
   * Sends as soon as the room is joined, in order and as fast as the server allows, and again until it is acknowledged.
   * @throws RangeError as `join` does
   */
  send(room: string, text?: string, data?: unknown): Sent;
  /** To all sessions of one user and all others of this one; needs no join. */
  direct(user: string, text?: string, data?: unknown): Sent;
  /** Say it on every keystroke; it goes out every 3 s at most. */
  typing(room: string, typing?: boolean): void;
  /** How this client is seen in all its rooms, also after a reconnect. */
  status(status: Status): void;
  /** Oldest first; without `before` or `after` (a `seq`) the newest. `limit` is 1–100, 50 by default. */
  history(
    room: string,
    range?: { before?: number; after?: number; limit?: number },
  ): Promise<{ messages: Omit<Message, "room" | "own">[]; more: boolean; epoch?: string }>;
  members(room: string): Member[];

  addEventListener<Type extends keyof Events>(
    type: Type,
    listener: (event: CustomEvent<Events[Type]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** Whether a server may take it for a room: 1–128 of `A-Z a-z 0-9 _ . : @ / -`, or `dm:` and two encoded names. */
export function isRoomName(name: string): boolean;
