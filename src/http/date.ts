/**
 * HTTP-date (RFC 9110 5.6.7): written as IMF-fixdate, read in all three forms.
 * Reading is strict except for upper and lower case, as RFC 9111 4.2 asks of
 * caches: no time zone but GMT, and no day that the calendar does not have.
 */
import type { EpochMs } from '../clock.js';

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];

const IMF_FIXDATE = /^(?:mon|tue|wed|thu|fri|sat|sun), (\d\d) ([a-z]{3}) (\d{4}) (\d\d):(\d\d):(\d\d) gmt$/i;
const RFC_850 = /^(?:mon|tues|wednes|thurs|fri|satur|sun)day, (\d\d)-([a-z]{3})-(\d\d) (\d\d):(\d\d):(\d\d) gmt$/i;
const ASCTIME = /^(?:mon|tue|wed|thu|fri|sat|sun) ([a-z]{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})$/i;

/** Used if the caller gives no instant: two-digit years then mean 1970 to 2069. */
const CENTURY_SEEN_FROM: EpochMs = Date.UTC(2020, 0) - 1;

export function formatHttpDate(at: EpochMs): string {
  return new Date(at).toUTCString();
}

/** Undefined for anything that is not an HTTP-date. `now` decides the century of two-digit years. */
export function parseHttpDate(text: string, now: EpochMs = CENTURY_SEEN_FROM): EpochMs | undefined {
  const imf = IMF_FIXDATE.exec(text);
  if (imf !== null) return instant(Number(imf[3]), imf[2], imf[1], imf[4], imf[5], imf[6]);
  const asctime = ASCTIME.exec(text);
  if (asctime !== null) {
    return instant(Number(asctime[6]), asctime[1], asctime[2], asctime[3], asctime[4], asctime[5]);
  }
  const old = RFC_850.exec(text);
  if (old === null) return undefined;
  const inCentury = (century: number): EpochMs | undefined =>
    instant(century + Number(old[3]), old[2], old[1], old[4], old[5], old[6]);
  return nearest(inCentury, now);
}

/** RFC 9110 5.6.7: a year more than 50 years ahead means the latest past year with the same last two digits. */
function nearest(inCentury: (century: number) => EpochMs | undefined, now: EpochMs): EpochMs | undefined {
  const latest = new Date(now);
  latest.setUTCFullYear(latest.getUTCFullYear() + 50);
  const century = latest.getUTCFullYear() - (latest.getUTCFullYear() % 100);
  // A 29 February may be missing in the nearest year, and in the one a century before.
  for (const each of [century, century - 100, century - 200]) {
    const at = inCentury(each);
    if (at !== undefined && at <= latest.getTime()) return at;
  }
  return undefined;
}

function instant(
  year: number,
  monthName: string | undefined,
  day: string | undefined,
  hour: string | undefined,
  minute: string | undefined,
  second: string | undefined,
): EpochMs | undefined {
  const month = MONTHS.indexOf((monthName ?? '').toLowerCase());
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return undefined;
  const date = new Date(0);
  // Not Date.UTC, which takes the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(year, month, Number(day));
  // Another month: the day is not in this one, or there is no month of this name.
  if (date.getUTCMonth() !== month) return undefined;
  return date.setUTCHours(Number(hour), Number(minute), Number(second));
}
