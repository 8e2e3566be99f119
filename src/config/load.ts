/**
 * Reads config.yaml against the sections that their owners declared. Reports
 * every fault at once, each with its path; no process starts on a bad file.
 */
import { readFileSync } from 'node:fs';
import { errorCode } from '../errors.js';
import { declaredAt, fieldsOf, nearest } from './declared.js';
import type { LoadContext, Section } from './field.js';
import { type Place, placesIn, readYaml } from './yaml.js';

export interface ConfigFault {
  /** Dotted path of the key; empty for the file as a whole. */
  readonly path: string;
  readonly message: string;
  /** The line of the file that cannot be read. Never log it: it may contain a secret. */
  readonly line?: string;
  /** Names in the section `path` that are no keys. */
  readonly keys?: readonly string[];
  /** Where the key stands in the file. */
  readonly at?: Place;
}

export type Sections = Readonly<Record<string, Section<unknown>>>;
/** The sections of which a configuration is read. */
export type SectionsOf<C> = { readonly [K in keyof C]: Section<C[K]> };

export type LoadOutcome<C> =
  | { readonly kind: 'loaded'; readonly config: C }
  | { readonly kind: 'faulty'; readonly faults: readonly ConfigFault[] };

/** All top-level keys. A process reads its own and ignores the others. */
export const SECTION_NAMES = ['log', 'access', 'origin', 'edge'] as const;

export const processContext: LoadContext = {
  env: (name) => process.env[name],
  file(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  },
};

/** Reads the file. A missing file is a fault; without a path, every key has its default. */
export function loadConfig<C>(
  path: string | undefined,
  sections: SectionsOf<C>,
  context: LoadContext = processContext,
): LoadOutcome<C> {
  if (path === undefined) return parseConfig('', sections, context);
  try {
    const text = readFileSync(path, 'utf8');
    const outcome = parseConfig(text, sections, context);
    return outcome.kind === 'loaded' ? outcome : { kind: 'faulty', faults: placed(outcome.faults, text, sections) };
  } catch (thrown) {
    const why = errorCode(thrown) === 'ENOENT' ? 'there is no such file' : 'it cannot be read';
    return { kind: 'faulty', faults: [{ path: '', message: `${path}: ${why}` }] };
  }
}

/** The same for a text. */
export function parseConfig<C>(
  text: string,
  sections: SectionsOf<C>,
  context: LoadContext = processContext,
): LoadOutcome<C> {
  const read = readYaml(text);
  if (read.kind === 'faulty') return { kind: 'faulty', faults: read.errors.map((error) => ({ path: '', ...error })) };
  const root = read.value ?? {};
  if (typeof root !== 'object' || root === null || Array.isArray(root)) {
    return { kind: 'faulty', faults: [{ path: '', message: 'the file must contain keys and values' }] };
  }
  const given = root as Readonly<Record<string, unknown>>;
  const faults: ConfigFault[] = unknownSections(given);
  const config: Record<string, unknown> = {};
  for (const [name, section] of Object.entries<Section<unknown>>(sections)) {
    const parsed = section.schema(context).safeParse(given[name] ?? {});
    if (parsed.success) config[name] = parsed.data;
    else faults.push(...parsed.error.issues.map((issue) => faultFrom(name, issue)));
  }
  return faults.length > 0 ? { kind: 'faulty', faults } : { kind: 'loaded', config: config as C };
}

/** The faults of a file, each with its place there and with the key that was probably meant. */
export function placed(faults: readonly ConfigFault[], text: string, sections: Sections): readonly ConfigFault[] {
  const placeOf = placesIn(text);
  return faults.map((fault) => {
    const { path, message, keys } = fault;
    const at = path === '' ? undefined : placeOf([...path.split('.'), ...(keys?.slice(0, 1) ?? [])]);
    const meant = meantBy(fault, sections);
    const hint = meant.length === 0 ? '' : `; did you mean ${meant.map((key) => `\`${key}\``).join(', ')}?`;
    return { ...fault, message: message + hint, ...(at !== undefined && { at }) };
  });
}

/** The same for faults of keys that do not fit together, of the file at `path`. */
export function placedIn(
  path: string | undefined,
  faults: readonly ConfigFault[],
  sections: Sections,
): readonly ConfigFault[] {
  if (path === undefined || faults.length === 0) return faults;
  try {
    return placed(faults, readFileSync(path, 'utf8'), sections);
  } catch {
    // The file has been read a moment ago; without it, the faults have no places.
    return faults;
  }
}

function meantBy({ path, keys }: ConfigFault, sections: Sections): readonly string[] {
  if (keys === undefined) {
    const near = path.includes('.') || path in sections ? undefined : nearest(path, SECTION_NAMES);
    return near === undefined ? [] : [near];
  }
  const section = declaredAt(sections, path);
  const known = section?.kind === 'section' ? Object.keys(fieldsOf(section)) : [];
  return keys.flatMap((key) => nearest(key, known) ?? []);
}

/** One fault per line, for a terminal. */
export function formatFaults(faults: readonly ConfigFault[]): string {
  return faults.map((fault) => `${loggableFault(fault)}${fault.line === undefined ? '' : ` ${fault.line}`}`).join('\n');
}

/** One fault with its place, as it may be logged. */
export function loggableFault({ path, message, at }: ConfigFault): string {
  const place = at === undefined ? '' : `line ${at.line}, column ${at.column}: `;
  return place + (path === '' ? message : `${path}: ${message}`);
}

function unknownSections(given: Readonly<Record<string, unknown>>): ConfigFault[] {
  const known: readonly string[] = SECTION_NAMES;
  return Object.keys(given)
    .filter((name) => !known.includes(name))
    .map((name) => ({ path: name, message: `is not a key of this file; its keys are ${known.join(', ')}` }));
}

interface Issue {
  readonly code?: string | undefined;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  readonly keys?: readonly string[];
}

/** An issue of zod in the section `name` as a fault. */
export function faultFrom(name: string, issue: Issue): ConfigFault {
  const path = [name, ...issue.path.map(String)].join('.');
  if (issue.code !== 'unrecognized_keys') return { path, message: issue.message };
  const keys = issue.keys ?? [];
  return {
    path,
    keys,
    message: `${keys.map((key) => `\`${key}\``).join(', ')} ${keys.length > 1 ? 'are not keys' : 'is not a key'} of this section`,
  };
}
