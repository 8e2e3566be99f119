/**
 * What differs between two configurations, key by key as the file writes them,
 * and whether a running process applies it. Values of secrets are never told. Pure.
 */
import { formatDuration, formatSize } from '../bytes.js';
import { type Declared, holdsSecret } from './declared.js';
import { type Field, fileKey, type Section } from './field.js';
import type { Sections } from './load.js';

export interface Change {
  /** The path of the key in the file. */
  readonly path: string;
  /** A running process applies it. */
  readonly live: boolean;
  /** The path with the old and the new value. */
  readonly text: string;
}

/** Both were read by these sections. */
export function changesBetween(sections: Sections, before: object, after: object): readonly Change[] {
  return Object.entries(sections).flatMap(([name, section]) =>
    ofSection(section, name, memberOf(before, name), memberOf(after, name)),
  );
}

function ofSection(section: Section<unknown>, path: string, before: unknown, after: unknown): readonly Change[] {
  const [one, other] = section.deferred === true ? [readOf(before), readOf(after)] : [before, after];
  return Object.entries(section.fields).flatMap(([name, field]) => {
    const inner = `${path}.${fileKey(name, field)}`;
    const [was, is] = [memberOf(one, name), memberOf(other, name)];
    return field.kind === 'section' ? ofSection(field, inner, was, is) : ofLeaf(field, inner, was, is);
  });
}

function ofLeaf(field: Field<unknown>, path: string, before: unknown, after: unknown): readonly Change[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  const change = (text: string): Change => ({ path, live: field.live === true, text });
  if (holdsSecret(field)) return [change(`${path}: changed`)];
  const within = field.of?.kind === 'section' ? ofGroups(field.of, path, before, after) : undefined;
  if (within !== undefined) return [change(within)];
  return [change(`${path}: ${said(field, before)} -> ${said(field, after)}`)];
}

/** Of lists of groups that have the same length, the keys that differ in each. */
function ofGroups(of: Section<unknown>, path: string, before: unknown, after: unknown): string | undefined {
  if (!Array.isArray(before) || !Array.isArray(after)) return undefined;
  if (before.length !== after.length) return `${path}: ${countText(before.length)} -> ${countText(after.length)}`;
  return before
    .flatMap((each, at) => ofSection(of, `${path}.${at}`, each, after[at]).map(({ text }) => text))
    .join(', ');
}

function countText(count: number): string {
  return count === 1 ? '1 entry' : `${count} entries`;
}

const SAID_MAX = 120;

/** A value as the file writes it. */
function said(field: Declared, value: unknown): string {
  const suffix = field.kind === 'leaf' ? field.suffix : '';
  if (typeof value === 'number' && suffix === 'Bytes') return formatSize(value);
  if (typeof value === 'number' && suffix === 'Ms') return formatDuration(value);
  if (typeof value === 'string') return value.slice(0, SAID_MAX);
  return (JSON.stringify(value) ?? 'nothing').slice(0, SAID_MAX);
}

/** What a deferred section came to; undefined if it had faults. */
function readOf(deferred: unknown): unknown {
  return memberOf(deferred, 'value');
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}
