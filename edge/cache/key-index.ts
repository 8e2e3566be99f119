/**
 * An index: from a key to the set of members filed under it, in the order in
 * which they were added. Most keys have one member, which then needs no set of
 * its own; a key without members takes no room.
 */
export class KeyIndex<Key extends string, Member extends string | object> {
  readonly #members = new Map<Key, Member | Set<Member>>();

  add(key: Key, member: Member): void {
    const found = this.#members.get(key);
    if (found === undefined) this.#members.set(key, member);
    else if (found instanceof Set) found.add(member);
    else if (found !== member) this.#members.set(key, new Set([found, member]));
  }

  remove(key: Key, member: Member): void {
    const found = this.#members.get(key);
    if (!(found instanceof Set)) {
      if (found === member) this.#members.delete(key);
      return;
    }
    found.delete(member);
    const [last] = found;
    if (found.size === 1 && last !== undefined) this.#members.set(key, last);
  }

  /** A copy: the index may change while it is read. */
  membersOf(key: Key): readonly Member[] {
    const found = this.#members.get(key);
    if (found === undefined) return [];
    return found instanceof Set ? [...found] : [found];
  }

  /** The members under all keys. A copy too. */
  members(): readonly Member[] {
    return [...this.#members.keys()].flatMap((key) => this.membersOf(key));
  }
}
