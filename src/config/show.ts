/** What `media-service config` prints of single keys and of a configuration as a whole. */

import { allPaths, type Declared, declaredAt, fieldsOf, isLive, nearest } from './declared.js';
import type { LoadContext } from './field.js';
import type { Sections } from './load.js';
import { placesIn, readYaml, writeYaml } from './yaml.js';

const LINE_MAX = 100;

export type KeyShown =
  | { readonly kind: 'shown'; readonly text: string }
  | { readonly kind: 'unknown'; readonly text: string };

/** One key or section, with its meaning. */
export function explainKey(sections: Sections, path: string): KeyShown {
  const found = declaredAt(sections, path);
  if (found === undefined) return { kind: 'unknown', text: unknownKey(sections, path) };
  if (found.kind === 'section') {
    const inner = Object.entries(fieldsOf(found)).map(
      ([key, { kind, help }]) => `  ${key}${kind === 'section' ? ':' : ''}  ${help}`,
    );
    return { kind: 'shown', text: [path, found.help, 'Its keys:', ...inner].join('\n') };
  }
  const lines = [
    path,
    found.help,
    `Accepts: ${found.accepts}`,
    `Default: ${found.fallback === undefined ? 'none, it must be given' : valueText(found.fallback)}`,
    isLive(found) ? 'A running process applies a change at once.' : 'A change needs a restart.',
  ];
  const items = found.of?.kind === 'section' ? Object.entries(fieldsOf(found.of)) : [];
  const keys = items.map(([key, { help }]) => `  ${key}  ${help}`);
  return { kind: 'shown', text: [...lines, ...(keys.length > 0 ? ['Each of the list has:', ...keys] : [])].join('\n') };
}

function unknownKey(sections: Sections, path: string): string {
  const paths = allPaths(sections);
  const last = path.split('.').at(-1) ?? '';
  const near = nearest(path, paths);
  const named = paths.filter((each) => each.split('.').at(-1) === last);
  const meant = near === undefined ? named : [near, ...named.filter((each) => each !== near)];
  return `there is no key ${path}${meant.length === 0 ? '' : `; did you mean ${meant.slice(0, 5).join(' or ')}?`}`;
}

/** Every key with the value that counts, and where it comes from. A secret is shown as the place of its value alone. */
export function effectiveConfig(sections: Sections, text: string, context: LoadContext): string {
  const read = readYaml(text);
  const given = read.kind === 'read' ? read.value : undefined;
  const placeOf = placesIn(text);
  const lines: string[] = [];
  const show = (key: string, declared: Declared, value: unknown, path: readonly string[]): void => {
    const indent = '  '.repeat(path.length - 1);
    if (declared.kind === 'section') {
      lines.push(`${indent}${key}:`);
      for (const [inner, field] of Object.entries(fieldsOf(declared))) {
        show(inner, field, memberOf(value, inner), [...path, inner]);
      }
      return;
    }
    const place = value === undefined ? undefined : placeOf(path);
    const shown = value === undefined ? declared.fallback : value;
    const from = [
      place === undefined ? 'default' : `line ${place.line}`,
      ...secretNote(declared.accepts, shown, context),
    ];
    lines.push(`${indent}${key}: ${valueText(shown)}  # ${from.join(', ')}`);
  };
  for (const [name, section] of Object.entries(sections)) show(name, section, memberOf(given, name), [name]);
  return `${lines.join('\n')}\n`;
}

function memberOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined;
}

/** Whether a secret is there; never what it is. */
function secretNote(accepts: string, source: unknown, context: LoadContext): readonly string[] {
  if (!accepts.startsWith('env:NAME') || typeof source !== 'string') return [];
  const [kind = '', name = ''] = source.split(/:(.*)/s);
  const found = kind === 'env' ? context.env(name) : context.file(name);
  return [found === undefined ? 'not there' : 'there'];
}

function valueText(value: unknown): string {
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : writeYaml(value, LINE_MAX).trimEnd();
}
