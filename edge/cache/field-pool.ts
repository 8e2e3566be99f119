/**
 * Header fields that many stored responses have in common, such as their security fields: one object for all that are
 * equal. Names are few, so all of them are shared; a value is shared where its name has few values.
 */
import type { HeaderList } from '../../src/http/reply.js';

type Field = HeaderList[number];

const NAMES_MAX = 256;
/** A name with more values than this, such as an ETag, has too many for sharing to pay. */
const VALUES_MAX = 64;
/** The bytes that the pool may hold for itself are few: a longer value is not shared. */
const VALUE_MAX_LENGTH = 512;

export class FieldPool {
  readonly #names = new Map<string, { readonly name: string; readonly fields: Map<string, Field> }>();

  /** The same fields in the same order. */
  share(headers: HeaderList): HeaderList {
    return headers.map((field) => this.#shared(field));
  }

  #shared(field: Field): Field {
    const [name, value] = field;
    const known = this.#names.get(name);
    if (known === undefined) {
      if (this.#names.size < NAMES_MAX) this.#names.set(name, { name, fields: new Map([[value, field]]) });
      return field;
    }
    const same = known.fields.get(value);
    if (same !== undefined) return same;
    const withName: Field = [known.name, value];
    if (known.fields.size < VALUES_MAX && value.length <= VALUE_MAX_LENGTH) known.fields.set(value, withName);
    return withName;
  }
}
