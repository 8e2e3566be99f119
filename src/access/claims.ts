/** From the claims of a valid token to its caller. Pure. */
import type { EpochMs } from '../clock.js';
import type { AccessConfig } from './config.js';
import type { Caller, Role, Scope } from './grant.js';
import type { Claims } from './token.js';

type ClaimRules = Pick<AccessConfig, 'issuers' | 'adminClaim' | 'scopeClaim'>;

/** Undefined if `sub` is not a usable name. */
export function callerOf(claims: Claims, issuer: string, expiresAt: EpochMs, rules: ClaimRules): Caller | undefined {
  const named = claims['sub'];
  if (typeof named !== 'string' || !SUBJECT.test(named)) return undefined;
  const prefix = rules.issuers.find((each) => each.issuer === issuer)?.subjectPrefix ?? '';
  const subject = prefix + named;
  return { subject, issuer, roles: rolesOf(claims, rules), scope: scopeOf(claims, rules), expiresAt };
}

/** At most 255 characters (OpenID Connect Core 2) without control characters, because it becomes part of keys and log lines. */
const SUBJECT = /^[^\p{Cc}]{1,255}$/u;

const ADMIN: ReadonlySet<Role> = new Set<Role>(['admin']);
const NO_ROLES: ReadonlySet<Role> = new Set<Role>();

function rolesOf(claims: Claims, { adminClaim }: ClaimRules): ReadonlySet<Role> {
  return wordsOf(claims, adminClaim.name).includes(adminClaim.value) ? ADMIN : NO_ROLES;
}

function scopeOf(claims: Claims, { scopeClaim }: ClaimRules): Scope {
  if (scopeClaim.name === null) return 'all';
  const words = wordsOf(claims, scopeClaim.name);
  const read = words.includes(scopeClaim.readValue);
  const upload = words.includes(scopeClaim.uploadValue);
  if (read === upload) return 'all';
  return read ? 'read' : 'upload';
}

/** A claim's words: a list of texts, or one text with spaces between the words (RFC 8693 4.2). */
function wordsOf(claims: Claims, name: string): readonly string[] {
  const value = claimOf(claims, name);
  if (typeof value === 'string') return value.split(' ');
  return Array.isArray(value) ? value.filter((word) => typeof word === 'string') : [];
}

/** By its exact name, which may contain dots (`https://…/roles`), otherwise as a path into objects (`realm_access.roles`). */
function claimOf(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const step of name.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Readonly<Record<string, unknown>>)[step];
  }
  return value;
}
