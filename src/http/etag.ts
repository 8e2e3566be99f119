/**
 * Entity tags (RFC 9110 8.8.3): recognised, and compared weakly or strongly, one
 * by one or with a list. Nothing is unescaped: a comma or a backslash inside the
 * quotes is part of the tag.
 */

const QUOTE = 0x22;
const COMMA = 0x2c;

/** Whether the text is exactly one entity tag, weak or strong. */
export function isEtag(text: string): boolean {
  return tagEnd(text, 0) === text.length;
}

export function isStrongEtag(text: string): boolean {
  return text.charCodeAt(0) === QUOTE && isEtag(text);
}

/** RFC 9110 8.8.3.2: the same tag, and neither of them weak. */
export function etagsMatchStrongly(one: string, other: string): boolean {
  return one === other && isStrongEtag(one);
}

/** RFC 9110 8.8.3.2: the same opaque part, weak or not. */
export function etagsMatchWeakly(one: string, other: string): boolean {
  return opaqueOf(one) === opaqueOf(other) && isEtag(one);
}

/**
 * Whether a list of entity tags (the value of If-Match or If-None-Match, except
 * `*`) contains this one. A malformed member matches nothing, and the members
 * after it still count.
 */
export function listHasEtag(list: string, etag: string, comparison: 'weak' | 'strong'): boolean {
  const matches = comparison === 'weak' ? etagsMatchWeakly : etagsMatchStrongly;
  let at = 0;
  while (at < list.length) {
    const start = skipSeparators(list, at);
    const end = tagEnd(list, start);
    if (endsMember(list, end)) {
      if (matches(list.slice(start, end), etag)) return true;
      at = end;
    } else {
      at = nextComma(list, Math.max(start, end));
    }
  }
  return false;
}

function opaqueOf(tag: string): string {
  return tag.startsWith('W/') ? tag.slice(2) : tag;
}

/** The end of the entity tag that starts here; -1 if none does. `W/` is case-sensitive. */
function tagEnd(text: string, start: number): number {
  const open = text.startsWith('W/', start) ? start + 2 : start;
  if (text.charCodeAt(open) !== QUOTE) return -1;
  for (let at = open + 1; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) return at + 1;
    if (code < 0x21 || code === 0x7f) return -1;
  }
  return -1;
}

/** Whether a member of the list may end here. False for -1. */
function endsMember(list: string, end: number): boolean {
  let at = end;
  while (isSpace(list.charCodeAt(at))) at += 1;
  return at >= list.length || list.charCodeAt(at) === COMMA;
}

function skipSeparators(list: string, from: number): number {
  let at = from;
  while (isSpace(list.charCodeAt(at)) || list.charCodeAt(at) === COMMA) at += 1;
  return at;
}

function nextComma(list: string, from: number): number {
  const comma = list.indexOf(',', from);
  return comma === -1 ? list.length : comma + 1;
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
