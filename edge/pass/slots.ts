/**
 * Which requests may be passed on at the same time. Requests with a body, such
 * as uploads, leave a share free for requests without one, and both leave a
 * share free for admins. One address, and one subject, has a limit within each
 * kind, so that nobody waits behind one sender.
 *
 * Promises: a slot is given back once, however often that is asked for. Leaves
 * to others: who the sender is (edge/authorize.ts).
 */
import { Fault } from '../../src/errors.js';
import { clientNetwork } from '../../src/server/hygiene.js';
import type { PassConfig } from './config.js';

export type PassKind = 'body' | 'bodiless' | 'admin';

export interface PassClaim {
  readonly kind: PassKind;
  readonly clientAddress: string;
  /** Of a valid token. */
  readonly subject: string | undefined;
}

export interface PassSlots {
  readonly active: number;
  /** Returns how to give the slot back. Throws the refusal if there is none. */
  take(claim: PassClaim): () => void;
}

export function createPassSlots(config: Pick<PassConfig, 'concurrentMax' | 'reservedMax' | 'perClientMax'>): PassSlots {
  const reserved = Math.min(config.reservedMax, Math.floor(config.concurrentMax / 4));
  const limits: Readonly<Record<PassKind, number>> = {
    admin: config.concurrentMax,
    bodiless: config.concurrentMax - reserved,
    body: config.concurrentMax - 2 * reserved,
  };
  const bySender = createShares(config.perClientMax);
  let active = 0;
  return {
    get active() {
      return active;
    },
    take({ kind, clientAddress, subject }) {
      if (active >= limits[kind]) throw overloaded('Too many requests are being passed on.');
      const senders = [
        `address ${clientNetwork(clientAddress)}`,
        ...(subject === undefined ? [] : [`subject ${subject}`]),
      ];
      const giveBack = kind === 'admin' ? () => undefined : bySender.take(senders.map((sender) => `${kind} ${sender}`));
      if (giveBack === undefined) throw overloaded('Too many requests of this client are being passed on.');
      active += 1;
      return once(() => {
        active -= 1;
        giveBack();
      });
    },
  };
}

function overloaded(detail: string): Fault {
  return new Fault('overloaded', detail, { headers: { 'retry-after': '1' } });
}

export interface Drains {
  /** Returns what to call when the body is dropped. Undefined: this body must not be read any further. */
  take(clientAddress: string): (() => void) | undefined;
}

/** Refused bodies that are read and dropped at the same time. They hold no slot. */
export function createDrains(config: Pick<PassConfig, 'drainsMax' | 'drainsPerClientMax'>): Drains {
  const byClient = createShares(config.drainsPerClientMax);
  let active = 0;
  return {
    take(clientAddress) {
      if (active >= config.drainsMax) return undefined;
      const giveBack = byClient.take([clientNetwork(clientAddress)]);
      if (giveBack === undefined) return undefined;
      active += 1;
      return once(() => {
        active -= 1;
        giveBack();
      });
    },
  };
}

/** Counts by name; 0: no limit. Takes one of each name or none. Holds no name that has nothing in hand. */
function createShares(max: number): { take(names: readonly string[]): (() => void) | undefined } {
  const counts = new Map<string, number>();
  return {
    take(names) {
      if (max > 0 && names.some((name) => (counts.get(name) ?? 0) >= max)) return undefined;
      for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
      return () => {
        for (const name of names) {
          const left = (counts.get(name) ?? 1) - 1;
          if (left === 0) counts.delete(name);
          else counts.set(name, left);
        }
      };
    },
  };
}

function once(act: () => void): () => void {
  let done = false;
  return () => {
    if (!done) act();
    done = true;
  };
}
