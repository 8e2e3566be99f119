/** Keys by what they have in common: the media they show, the primary key they vary under. Most groups have one member. */
import type { CacheKey } from '../entry.js';

export class Groups {
  readonly #members = new Map<string, CacheKey | Set<CacheKey>>();

  add(group: string, key: CacheKey): void {
    const held = this.#members.get(group);
    if (held === undefined) this.#members.set(group, key);
    else if (typeof held !== 'string') held.add(key);
    else if (held !== key) this.#members.set(group, new Set([held, key]));
  }

  remove(group: string, key: CacheKey): void {
    const held = this.#members.get(group);
    if (held === undefined) return;
    if (typeof held === 'string') {
      if (held === key) this.#members.delete(group);
      return;
    }
    held.delete(key);
    const [last] = held;
    if (held.size === 1 && last !== undefined) this.#members.set(group, last);
  }

  /** A copy: the group may change while it is walked. */
  membersOf(group: string): readonly CacheKey[] {
    const held = this.#members.get(group);
    if (held === undefined) return [];
    return typeof held === 'string' ? [held] : [...held];
  }
}
