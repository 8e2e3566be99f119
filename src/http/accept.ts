/**
 * Accept (RFC 9110 12.5.1): which of the offered types a client is given.
 */
import { listMembers, trimSpace } from './fields.js';

/** Further ranges of a field are ignored. */
const RANGES_MAX = 64;

/** A media range without parameters. */
interface MediaRange {
  /** In lower case; the subtype, or both, may be a wildcard. */
  readonly type: string;
  readonly weight: number;
}

/**
 * The offered type with the highest weight; of equal ones, the first. So list
 * them by preference, in lower case and without parameters. Undefined if all are
 * refused. A missing field, and one without any valid range, accept everything.
 *
 * `mustBeNamed`: types that a wildcard does not cover, because clients that
 * cannot read them send wildcards too.
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

/** Whether all ranges of the field are of this family, such as `image`. False without a valid range. */
export function namesOnly(accept: string | undefined, family: string): boolean {
  const ranges = accept === undefined ? [] : readRanges(accept);
  return ranges.length > 0 && ranges.every(({ type }) => type.startsWith(`${family}/`));
}

/** The weight of the most specific range that covers the type; 0 if none does. */
function weightOf(type: string, ranges: readonly MediaRange[], named: boolean): number {
  const family = `${type.slice(0, type.indexOf('/'))}/*`;
  let weight = 0;
  let specificity = 0;
  for (const range of ranges) {
    const found = range.type === type ? 3 : named ? 0 : range.type === family ? 2 : range.type === '*/*' ? 1 : 0;
    if (found > specificity) {
      weight = range.weight;
      specificity = found;
    }
  }
  return weight;
}

function readRanges(accept: string): readonly MediaRange[] {
  const ranges: MediaRange[] = [];
  for (const member of listMembers(accept.toLowerCase())) {
    if (ranges.length === RANGES_MAX) break;
    const range = readRange(member);
    if (range !== undefined) ranges.push(range);
  }
  return ranges;
}

/** `type/subtype`, `type/*` or `*` for both. Other text with a slash matches no offered type, so it need not be refused. */
function isRange(type: string): boolean {
  const slash = type.indexOf('/');
  return slash > 0 && slash < type.length - 1;
}

/** Undefined for what is not a range, and for a range with parameters, because our types have none. */
function readRange(member: string): MediaRange | undefined {
  const semicolon = member.indexOf(';');
  if (semicolon === -1) return isRange(member) ? { type: member, weight: 1 } : undefined;
  const type = trimSpace(member.slice(0, semicolon));
  const match = WEIGHT.exec(member.slice(semicolon));
  return match === null || !isRange(type) ? undefined : { type, weight: Number(match[1]) };
}

/** 12.4.2: a range with a malformed weight is ignored. Older clients write extensions after the weight. */
const WEIGHT = /^;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|$)/;
