/**
 * Answers that are on their way out: the edge has written all of them, but the
 * client has not read them yet. A takedown can still break them off.
 */
import type { MediaId } from '../../src/ids.js';
import { KeyIndex } from '../cache/key-index.js';

/** The connection or response that an answer leaves by. */
export interface Breakable {
  destroy(): unknown;
}

export interface Outgoing {
  /** Returns what to call once the answer has left or its client is gone. */
  add(id: MediaId, connection: Breakable): () => void;
  breakOff(id: MediaId): void;
  breakOffAll(): void;
}

export function createOutgoing(): Outgoing {
  const connections = new KeyIndex<MediaId, Breakable>();
  return {
    add(id, connection) {
      connections.add(id, connection);
      return () => connections.remove(id, connection);
    },
    breakOff(id) {
      for (const connection of connections.membersOf(id)) connection.destroy();
    },
    breakOffAll() {
      for (const connection of connections.members()) connection.destroy();
    },
  };
}
