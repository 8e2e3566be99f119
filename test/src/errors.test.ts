/** The table of failures: the status of each code, as the contract has it, and what becomes of an error that is not in it. */
import t from 'tap';
import { errorCode, FAULTS, Fault, type FaultCode, faultOf, invariant } from '../../src/errors.js';

/** As clients know them: a status that changes breaks them. */
const STATUSES: Readonly<Record<number, readonly FaultCode[]>> = {
  400: ['malformed', 'invalid_id', 'empty', 'digest_mismatch'],
  401: ['unauthorized'],
  403: ['forbidden', 'quarantined'],
  404: ['not_found', 'thumbnail_unavailable'],
  405: ['method_not_allowed'],
  408: ['request_timeout'],
  409: ['conflict'],
  410: ['deleted', 'expired'],
  411: ['length_required'],
  412: ['precondition_failed'],
  413: ['too_large'],
  414: ['uri_too_long'],
  415: ['type_refused', 'type_mismatch'],
  416: ['range_not_satisfiable'],
  417: ['expectation_failed'],
  421: ['misdirected'],
  429: ['rate_limited', 'quota_exceeded'],
  431: ['headers_too_large'],
  460: ['checksum_mismatch'],
  500: ['internal'],
  501: ['not_implemented'],
  502: ['bad_gateway'],
  503: ['overloaded', 'auth_unavailable', 'cut_off', 'storage_unavailable'],
  504: ['gateway_timeout'],
  505: ['http_version'],
  507: ['storage_full'],
};

void t.test('each code has its status', async (t) => {
  for (const [status, codes] of Object.entries(STATUSES)) {
    for (const code of codes) t.equal(new Fault(code, '').status, Number(status), code);
  }
});

void t.test(
  'a refusal of the client is final unless it is about time or numbers; what we fail at may be tried again',
  (t) => {
    for (const [code, { status, retryable, side }] of Object.entries(FAULTS)) {
      if (status < 500) t.equal(side, 'client', code);
      t.equal(retryable, status >= 500 ? ![501, 505].includes(status) : [408, 429, 460].includes(status), code);
    }
    t.end();
  },
);

void t.test('a fault carries what it is given, and nothing else', async (t) => {
  const cause = new Error('inner');
  const given = { headers: { allow: 'GET' }, members: { offset: 5 }, cause };
  const { name, code, detail, headers, members, message, cause: kept } = new Fault('conflict', 'in words', given);
  t.strictSame(
    { name, code, detail, headers, members, message },
    {
      name: 'Fault',
      code: 'conflict',
      detail: 'in words',
      headers: { allow: 'GET' },
      members: { offset: 5 },
      message: 'conflict: in words',
    },
  );
  t.equal(kept, cause);
  const bare = new Fault('empty', '');
  t.strictSame([bare.headers, bare.members, bare.side, 'cause' in bare], [{}, {}, 'client', false]);
});

void t.test('an error of the system becomes the failure that it means', async (t) => {
  const systemError = (members: object): Error => Object.assign(new Error('inner'), members);
  for (const code of ['ENOSPC', 'EDQUOT', 'EFBIG']) {
    t.equal(faultOf(systemError({ code })).code, 'storage_full', code);
  }
  const unusable = [
    'ENOENT',
    'ENOTDIR',
    'EISDIR',
    'EXDEV',
    'ELOOP',
    'EROFS',
    'EACCES',
    'EPERM',
    'EIO',
    'ENODEV',
    'ENXIO',
    'ESTALE',
    'EBUSY',
    'EMFILE',
    'ENFILE',
  ];
  for (const code of unusable) {
    t.equal(faultOf(systemError({ code, syscall: 'open', path: '/data/blobs/x' })).code, 'storage_unavailable', code);
    t.equal(faultOf(systemError({ code, syscall: 'connect' })).code, 'internal', `${code} of a connection`);
    t.equal(faultOf(systemError({ code, syscall: 'spawn x', path: 'x' })).code, 'internal', `${code} of a program`);
  }
  for (const thrown of [systemError({ code: 'ECONNRESET' }), new Error('x'), 'text', null, undefined, { code: 5 }]) {
    t.equal(faultOf(thrown).code, 'internal', JSON.stringify(thrown));
  }
  const thrown = systemError({ code: 'ENOSPC' });
  t.equal(faultOf(thrown).cause, thrown);
  const fault = new Fault('empty', 'x');
  t.equal(faultOf(fault), fault, 'what is a fault already stays as it is');
});

void t.test('the code of an error is a text, or there is none', async (t) => {
  t.equal(errorCode(Object.assign(new Error('x'), { code: 'EPERM' })), 'EPERM');
  for (const thrown of [undefined, null, 'EPERM', 5, {}, { code: 5 }, new Error('x')]) {
    t.equal(errorCode(thrown), undefined, JSON.stringify(thrown));
  }
  t.throws(() => invariant(false, 'a claim'), { message: 'broken invariant: a claim' });
  t.doesNotThrow(() => invariant(true, 'a claim'));
});
