/** Finds keys among the declarations: by their path in the file, or by a name that is nearly theirs. Pure. */
import { type Field, fileKey, type Section } from './field.js';

export type Declared = Field<unknown> | Section<unknown>;
type Sections = Readonly<Record<string, Section<unknown>>>;

/** What stands at a dotted path, such as `edge.rules.0.ttl`. Undefined: there is no such key. */
export function declaredAt(sections: Sections, path: string): Declared | undefined {
  const [top = '', ...keys] = path.split('.');
  return keys.reduce<Declared | undefined>((group, key) => {
    if (group?.kind === 'leaf') return /^\d+$/.test(key) ? group.of : undefined;
    return group === undefined ? undefined : fieldsOf(group)[key];
  }, sections[top]);
}

/** The keys of a section, as the file writes them. */
export function fieldsOf(section: Section<unknown>): Readonly<Record<string, Declared>> {
  return Object.fromEntries(Object.entries(section.fields).map(([name, field]) => [fileKey(name, field), field]));
}

/** The paths of all keys and sections. */
export function allPaths(sections: Sections): readonly string[] {
  const below = (path: string, section: Section<unknown>): readonly string[] =>
    Object.entries(fieldsOf(section)).flatMap(([key, field]) => {
      const inner = `${path}.${key}`;
      return field.kind === 'section' ? [inner, ...below(inner, field)] : [inner];
    });
  return Object.entries(sections).flatMap(([name, section]) => [name, ...below(name, section)]);
}

/** Whether a running process applies a change: of a section, if it does so for each of its keys. */
export function isLive(declared: Declared): boolean {
  if (declared.kind === 'leaf') return declared.live === true;
  return Object.values(declared.fields).every(isLive);
}

/** Whether its value is a secret, or may have one in it. */
export function holdsSecret(declared: Declared): boolean {
  if (declared.kind === 'section') return Object.values(declared.fields).some(holdsSecret);
  return declared.accepts.startsWith('env:NAME') || (declared.of !== undefined && holdsSecret(declared.of));
}

/** The word that was probably meant; undefined if none is near. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  const limit = Math.max(1, Math.floor(word.length / 3));
  const ranked = words
    .map((each) => ({ each, far: distance(plain(word), plain(each)) }))
    .filter(({ far }) => far <= limit)
    .sort((one, other) => one.far - other.far);
  return ranked[0]?.each;
}

function plain(word: string): string {
  return word.toLowerCase().replace(/[-_]/g, '');
}

/** How many letters have to be added, removed, replaced or swapped with the next (optimal string alignment). */
function distance(one: string, other: string): number {
  let before: readonly number[] = [];
  let row: readonly number[] = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let at = 1; at <= one.length; at += 1) {
    const next = [at];
    for (let to = 1; to <= other.length; to += 1) {
      const replaced = (row[to - 1] ?? 0) + (one[at - 1] === other[to - 1] ? 0 : 1);
      const isSwap = at > 1 && to > 1 && one[at - 1] === other[to - 2] && one[at - 2] === other[to - 1];
      const swapped = isSwap ? (before[to - 2] ?? 0) + 1 : replaced;
      next.push(Math.min((row[to] ?? 0) + 1, (next[to - 1] ?? 0) + 1, replaced, swapped));
    }
    [before, row] = [row, next];
  }
  return row[other.length] ?? 0;
}
