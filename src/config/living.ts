/**
 * The configuration that the components of a running process are given. The keys
 * that are declared `live` change in it: whoever reads them when they are used
 * has the newest value. All other keys stay as they were at the start.
 */
import type { Section } from './field.js';
import type { Sections } from './load.js';

export interface Living<C> {
  readonly config: C;
  /** Takes over the live keys of a newer configuration. */
  renew(next: C): void;
}

type Group = Record<string, unknown>;

/** `config` was read by these sections, and stays as it is. */
export function livingConfig<C extends object>(sections: Sections, config: C): Living<C> {
  const living = copyOf(sections, config as Group);
  return {
    config: living as C,
    renew(next) {
      for (const [name, section] of Object.entries(sections)) renew(section, living[name], (next as Group)[name]);
    },
  };
}

function copyOf(sections: Sections, config: Group): Group {
  return Object.fromEntries(
    Object.entries(config).map(([name, value]) => {
      const section = sections[name];
      return [name, section === undefined ? value : copyOfSection(section, value)];
    }),
  );
}

function copyOfSection(section: Section<unknown>, value: unknown): unknown {
  if (!isGroup(value)) return value;
  if (section.deferred === true) {
    return isGroup(value['value']) ? { ...value, value: copyOfFields(section, value['value']) } : value;
  }
  return copyOfFields(section, value);
}

function copyOfFields({ fields }: Section<unknown>, value: Group): Group {
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => {
      const field = fields[name];
      return [name, field?.kind === 'section' ? copyOfSection(field, each) : each];
    }),
  );
}

function renew(section: Section<unknown>, living: unknown, next: unknown): void {
  const [into, from] = section.deferred === true ? [readValueOf(living), readValueOf(next)] : [living, next];
  if (!isGroup(into) || !isGroup(from)) return;
  for (const [name, field] of Object.entries(section.fields)) {
    if (field.kind === 'section') renew(field, into[name], from[name]);
    // The same value stays the same object.
    else if (field.live === true && !isSame(into[name], from[name])) into[name] = from[name];
  }
}

function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function readValueOf(deferred: unknown): unknown {
  return isGroup(deferred) ? deferred['value'] : undefined;
}

function isGroup(value: unknown): value is Group {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
