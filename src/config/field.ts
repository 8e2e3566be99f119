/**
 * Declarations of keys of config.yaml: type, default, bounds and meaning, next
 * to the code that uses them. In code a key is camelCase and ends in its unit
 * (`maxSizeBytes`, `ttlMs`). In the file it is snake_case and the value has the
 * unit (`max_size: 10MB`, `ttl: 30s`).
 *
 * Promises: unknown keys are refused, every fault is found in one pass, and
 * defaults are checked like values. Reading files and the environment is left
 * to load.ts, which passes a LoadContext.
 */
import { z } from 'zod';
import { formatDuration, formatSize, parseDuration, parseSize } from '../bytes.js';
import { invariant } from '../errors.js';

/** What a field may read while it is parsed. */
export interface LoadContext {
  env(name: string): string | undefined;
  /** The text of a file; undefined if it cannot be read. */
  file(path: string): string | undefined;
}

export interface Field<T> {
  readonly kind: 'leaf';
  /** The default as config.yaml shows it. Undefined: the key must be given. */
  readonly fallback: unknown;
  readonly help: string;
  /** Bounds and unit in words, for the comment in config.yaml. */
  readonly accepts: string;
  /** The end of the name in code that the key in the file does not have. */
  readonly suffix: string;
  /** What the items of a list are. */
  readonly of?: Field<unknown> | Section<unknown> | undefined;
  /** Items that a list may have, as comments below the key. */
  readonly examples?: readonly Example[];
  /** A running process applies a change. Absent: a change needs a restart. */
  readonly live?: true;
  schema(context: LoadContext): z.ZodType<T>;
}

export interface Section<T> {
  readonly kind: 'section';
  readonly help: string;
  readonly fields: Readonly<Record<string, Field<unknown> | Section<unknown>>>;
  /** What is read of it is a `Deferred`. */
  readonly deferred?: true;
  schema(context: LoadContext): z.ZodType<T>;
}

type Shape = Readonly<Record<string, Field<unknown> | Section<unknown>>>;
export type ValueOf<F> = F extends Field<infer T> ? T : F extends Section<infer T> ? T : never;

/** An item of a list as the file has it, and what it is for. */
export interface Example {
  readonly why: string;
  readonly item: unknown;
}

interface Meaning<D> {
  readonly default: D;
  readonly help: string;
  /**
   * Says that a running process applies a change (src/reload.ts): the value is read from the configuration whenever it is
   * used, or the process hands it over in its `apply`.
   */
  readonly live?: true;
}

interface Bounds {
  readonly min?: number;
  readonly max?: number;
}

/** A group of keys. If the file leaves it out, all its keys have their defaults. */
export function section<S extends Shape>(help: string, fields: S): Section<{ readonly [K in keyof S]: ValueOf<S[K]> }> {
  type Value = { readonly [K in keyof S]: ValueOf<S[K]> };
  const entries = Object.entries(fields).map(([name, field]) => ({ name, key: fileKey(name, field), field }));
  invariant(new Set(entries.map(({ key }) => key)).size === entries.length, `keys of one section differ: ${help}`);
  return {
    kind: 'section',
    help,
    fields,
    schema(context) {
      const shape: Record<string, z.ZodType> = {};
      for (const { key, field } of entries) shape[key] = withDefault(field, context);
      return z
        .preprocess((value) => (value === null ? {} : value), z.strictObject(shape))
        .transform((parsed) => {
          const read = parsed as Record<string, unknown>;
          return Object.fromEntries(entries.map(({ name, key }) => [name, read[key]])) as Value;
        });
    },
  };
}

/** The same with each key `live`. */
export function live<T>(declared: Section<T>): Section<T>;
export function live<T>(declared: Field<T>): Field<T>;
export function live(declared: Field<unknown> | Section<unknown>): Field<unknown> | Section<unknown> {
  if (declared.kind === 'leaf') return { ...declared, live: true, of: declared.of && liveEither(declared.of) };
  const fields = Object.entries(declared.fields).map(([name, field]) => [name, liveEither(field)]);
  return { ...declared, fields: Object.fromEntries(fields) as Shape };
}

function liveEither(declared: Field<unknown> | Section<unknown>): Field<unknown> | Section<unknown> {
  return declared.kind === 'leaf' ? live(declared) : live(declared);
}

/** A section as it was read, if its faults count only for those who need it. */
export type Deferred<T> =
  | { readonly kind: 'read'; readonly value: T }
  | { readonly kind: 'faulty'; readonly issues: readonly z.core.$ZodIssue[] };

/** A section that a process needs or not, depending on other keys. Whoever needs it reports its faults. */
export function deferred<T>(inner: Section<T>): Section<Deferred<T>> {
  return {
    ...inner,
    deferred: true,
    schema: (context) =>
      z.unknown().transform((given) => {
        const parsed = inner.schema(context).safeParse(given ?? {});
        return parsed.success ? { kind: 'read', value: parsed.data } : { kind: 'faulty', issues: parsed.error.issues };
      }),
  };
}

/** The key of a field in the file: snake_case, without the unit. */
export function fileKey(name: string, field: Field<unknown> | Section<unknown>): string {
  const suffix = field.kind === 'leaf' ? field.suffix : '';
  const bare = suffix !== '' && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
  return bare.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function withDefault(field: Field<unknown> | Section<unknown>, context: LoadContext): z.ZodType {
  return field.schema(context).prefault(field.kind === 'section' ? {} : field.fallback);
}

function leaf<T>(
  meaning: Meaning<unknown>,
  accepts: string,
  schema: (context: LoadContext) => z.ZodType<T>,
  suffix = '',
): Field<T> {
  const { default: fallback, help, live: isLive } = meaning;
  return { kind: 'leaf', fallback, help, accepts, suffix, schema, ...(isLive && { live: true }) };
}

/** One line of text. */
export function text(meaning: Meaning<string> & { pattern?: RegExp; accepts?: string }): Field<string> {
  return leaf(meaning, meaning.accepts ?? 'text', () => {
    const { pattern } = meaning;
    return pattern === undefined
      ? z.string()
      : z.string().regex(pattern, `must be ${meaning.accepts ?? `like ${pattern.source}`}`);
  });
}

/** A text or null. */
export function optionalText(
  meaning: Meaning<string | null> & { readonly pattern?: RegExp; readonly accepts?: string },
): Field<string | null> {
  const { pattern, accepts = 'text' } = meaning;
  return leaf(meaning, `${accepts}, or null`.replace('text, or', 'text or'), () =>
    (pattern === undefined ? z.string() : z.string().regex(pattern, `must be ${accepts}`)).nullable(),
  );
}

export function flag(meaning: Meaning<boolean>): Field<boolean> {
  return leaf(meaning, 'true or false', () => z.boolean());
}

export function integer(meaning: Meaning<number> & Bounds): Field<number> {
  return leaf(meaning, `a whole number${boundsText(meaning, String)}`, () => bounded(z.int(), meaning, String));
}

/** A whole number, or `auto`: as many as suit the machine. */
export function integerOrAuto(meaning: Meaning<number | 'auto'> & Bounds): Field<number | 'auto'> {
  return leaf(meaning, `a whole number${boundsText(meaning, String)}, or auto`, () =>
    z.union([bounded(z.int(), meaning, String), z.literal('auto')], 'must be a whole number, or auto'),
  );
}

/** Any number. */
export function ratio(meaning: Meaning<number> & Bounds): Field<number> {
  return leaf(meaning, `a number${boundsText(meaning, String)}`, () => bounded(z.number(), meaning, String));
}

/** Bytes: `10MB`, `64KiB`, or a bare number. The name in code ends in `Bytes`. */
export function size(meaning: Meaning<string> & Bounds): Field<number> {
  return leaf(
    meaning,
    `a size${boundsText(meaning, formatSize)}`,
    () => measured('a size such as 10MB or 64KiB', parseSize, meaning, formatSize),
    'Bytes',
  );
}

/** Milliseconds: `250ms`, `30s`, `5m`, `24h`, `7d`. The name in code ends in `Ms`. */
export function duration(meaning: Meaning<string> & Bounds): Field<number> {
  return leaf(
    meaning,
    `a duration${boundsText(meaning, formatDuration)}`,
    () => measured('a duration such as 250ms, 30s, 5m, 24h or 7d', parseDuration, meaning, formatDuration),
    'Ms',
  );
}

/** A duration or null. The name in code ends in `Ms`. */
export function optionalDuration(meaning: Meaning<string | null> & Bounds): Field<number | null> {
  return leaf(
    meaning,
    `a duration${boundsText(meaning, formatDuration)}, or null`,
    () => measured('a duration such as 30s or 7d', parseDuration, meaning, formatDuration).nullable(),
    'Ms',
  );
}

export function choice<const C extends readonly [string, ...string[]]>(
  meaning: Meaning<C[number]> & { of: C },
): Field<C[number]> {
  return leaf(meaning, meaning.of.join(' | '), () => z.enum(meaning.of) as unknown as z.ZodType<C[number]>);
}

/** A list of values or groups of one kind. */
export function list<T>(
  meaning: Meaning<readonly unknown[]> & {
    of: Field<T> | Section<T>;
    min?: number;
    max?: number;
    examples?: readonly Example[];
  },
): Field<readonly T[]> {
  const items = meaning.of.kind === 'leaf' ? meaning.of.accepts : 'groups of keys';
  const declared = leaf<readonly T[]>(meaning, `a list of ${items}`, (context) => {
    let schema = z.array(meaning.of.schema(context));
    if (meaning.min !== undefined) schema = schema.min(meaning.min);
    return schema.max(meaning.max ?? 1_000);
  });
  return {
    ...declared,
    of: meaning.live === true ? liveEither(meaning.of) : meaning.of,
    ...(meaning.examples === undefined ? {} : { examples: meaning.examples }),
  };
}

/** The address of a server: `http://host:port`, without a path. */
export function origin(meaning: Meaning<string>): Field<string> {
  return leaf(meaning, 'http:// or https:// with host and port', () =>
    z.string().refine(isOrigin, 'must be http:// or https:// with a host and no path'),
  );
}

/** An absolute http(s) URL, or null. */
export function optionalUrl(meaning: Meaning<string | null>): Field<string | null> {
  return leaf(meaning, 'an http:// or https:// URL, or null', () =>
    z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL, or null' }).nullable(),
  );
}

/**
 * A secret, which is never written into the file itself: `env:NAME` or
 * `file:PATH`. The value is the text found there, without white space at its ends.
 */
export function secret(meaning: Meaning<string> & { minLength?: number }): Field<string> {
  return leaf(meaning, 'env:NAME or file:PATH', (context) => secretSchema(context, meaning.minLength ?? 16));
}

/** A secret or null. */
export function optionalSecret(meaning: Meaning<string | null> & { minLength?: number }): Field<string | null> {
  return leaf(meaning, 'env:NAME, file:PATH or null', (context) =>
    secretSchema(context, meaning.minLength ?? 16).nullable(),
  );
}

function secretSchema(context: LoadContext, minLength: number): z.ZodType<string> {
  return z.string().transform((source, issues) => {
    const found = readSecret(source, context);
    if (typeof found === 'string') {
      if (found.length >= minLength) return found;
      issues.addIssue({ code: 'custom', message: `${source} has fewer than ${minLength} characters` });
    } else {
      issues.addIssue({ code: 'custom', message: found.fault });
    }
    return z.NEVER;
  });
}

function readSecret(source: string, context: LoadContext): string | { fault: string } {
  if (source.startsWith('env:')) {
    const name = source.slice(4);
    return context.env(name)?.trim() ?? { fault: `the environment variable ${name} is not set` };
  }
  if (source.startsWith('file:')) {
    const path = source.slice(5);
    return context.file(path)?.trim() ?? { fault: `the file ${path} cannot be read` };
  }
  return { fault: 'must be env:NAME or file:PATH; a secret is never written into the file itself' };
}

function isOrigin(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const parsed = new URL(value);
  return /^https?:$/.test(parsed.protocol) && parsed.origin === value.replace(/\/$/, '').toLowerCase();
}

function measured(
  what: string,
  parse: (text: string) => number | undefined,
  bounds: Bounds,
  format: (value: number) => string,
): z.ZodType<number> {
  return z.union([z.string(), z.number()], `must be ${what}`).transform((given, issues) => {
    const value = parse(String(given));
    const fault = value === undefined ? `must be ${what}` : boundsFault(value, bounds, format);
    if (fault === undefined && value !== undefined) return value;
    issues.addIssue({ code: 'custom', message: fault ?? '' });
    return z.NEVER;
  });
}

function bounded(schema: z.ZodNumber, bounds: Bounds, format: (value: number) => string): z.ZodType<number> {
  return schema.superRefine((value, issues) => {
    const fault = boundsFault(value, bounds, format);
    if (fault !== undefined) issues.addIssue({ code: 'custom', message: fault });
  });
}

function boundsFault(value: number, bounds: Bounds, format: (value: number) => string): string | undefined {
  if (bounds.min !== undefined && value < bounds.min) return `must be at least ${format(bounds.min)}`;
  if (bounds.max !== undefined && value > bounds.max) return `must be at most ${format(bounds.max)}`;
  return undefined;
}

function boundsText(bounds: Bounds, format: (value: number) => string): string {
  const { min, max } = bounds;
  if (min !== undefined && max !== undefined) return `, ${format(min)} to ${format(max)}`;
  if (min !== undefined) return `, at least ${format(min)}`;
  return max === undefined ? '' : `, at most ${format(max)}`;
}
