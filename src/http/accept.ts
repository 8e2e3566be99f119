/**
 * Accept (RFC 9110 12.5.1): which of the offered types a client is given.
 */
import { listMembers, skipQuoted, trimSpace } from './fields.js';

/** A field with more ranges is read no further. */
const RANGES_MAX = 64;

/** A media range without parameters: what we offer has none, so a range with some covers none of it. */
interface MediaRange {
  /** Lower case; a wildcard in place of the subtype, or of both. */
  readonly type: string;
  readonly weight: number;
}

/**
 * The offered type with the highest weight; among equals the first offered, so
 * list them by preference, in lower case and without parameters. Undefined where
 * all are refused. No field, and one without a single readable range, accept
 * anything.
 *
 * `mustBeNamed`: types that a wildcard does not cover, because wildcards are
 * sent by clients that cannot read them.
 */
export function chooseType(
  accept: string | undefined,
  offered: readonly string[],
  mustBeNamed: readonly string[] = [],
): string | undefined {
  const ranges = accept === undefined ? [] : readRanges(accept);
  if (ranges.length === 0) return offered.find((type) => !mustBeNamed.includes(type));
  let best: string | undefined;
  let bestWeight = 0;
  for (const type of offered) {
    const weight = weightOf(type, ranges, mustBeNamed.includes(type));
    if (weight > bestWeight) {
      best = type;
      bestWeight = weight;
    }
  }
  return best;
}

/** The weight of the most specific range that covers the type; 0 where none does. */
function weightOf(type: string, ranges: readonly MediaRange[], named: boolean): number {
  const family = `${type.slice(0, type.indexOf('/'))}/*`;
  for (const wanted of named ? [type] : [type, family, '*/*']) {
    const found = ranges.find((range) => range.type === wanted);
    if (found !== undefined) return found.weight;
  }
  return 0;
}

function readRanges(accept: string): readonly MediaRange[] {
  return listMembers(accept)
    .slice(0, RANGES_MAX)
    .map(readRange)
    .filter((range) => range !== undefined);
}

const TYPE = /^(?:\*\/\*|[!#$%&'+.^_`|~0-9a-z-]+\/(?:\*|[!#$%&'+.^_`|~0-9a-z-]+))$/;

function readRange(member: string): MediaRange | undefined {
  const [type = '', ...parameters] = splitParameters(member);
  if (!TYPE.test(type.toLowerCase())) return undefined;
  const at = parameters.findIndex((parameter) => /^q[ \t]*=/i.test(parameter));
  const weight = at === -1 ? 1 : readWeight(parameters[at] ?? '');
  // 12.4.2: a weight that is none makes a range that says nothing.
  if (weight === undefined || at > 0 || (at === -1 && parameters.length > 0)) return undefined;
  return { type: type.toLowerCase(), weight };
}

/** The number in `q=0.5`. */
function readWeight(parameter: string): number | undefined {
  const match = /^q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/i.exec(parameter);
  return match === null ? undefined : Number(match[1]);
}

function splitParameters(member: string): string[] {
  const parts: string[] = [];
  let start = 0;
  for (let at = 0; at < member.length; at += 1) {
    if (member[at] === '"') at = skipQuoted(member, at);
    else if (member[at] === ';') {
      parts.push(trimSpace(member.slice(start, at)));
      start = at + 1;
    }
  }
  parts.push(trimSpace(member.slice(start)));
  return parts.filter((part) => part !== '');
}
