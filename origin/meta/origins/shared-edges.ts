/**
 * What the origins over one store tell each other about the edges that follow them. A record is coarse: it says where an
 * edge is, and about how far. How many have confirmed an entry is asked of each origin, which knows its own edges.
 */
import type { FollowingEdge } from '../../../src/journal/confirmations.js';

/** An edge as the origin records it that it follows or has followed last. */
export type RecordedEdge = FollowingEdge;

/** An origin's answer: how many of its edges have confirmed the entry. */
export interface OriginAnswer {
  readonly origin: string;
  readonly confirmed: number;
  readonly known: number;
  /** It waits for no edge any more. */
  readonly isFinal: boolean;
}

export interface SharedEdges {
  /**
   * Records the edges of this origin, in place of those that it had recorded. An edge that another origin has recorded
   * with a later connection stays there: resolves with the names of those.
   */
  record(edges: readonly RecordedEdge[]): Promise<readonly string[]>;
  /** What the other origins have recorded, with the name of each. */
  elsewhere(): Promise<readonly (RecordedEdge & { readonly origin: string })[]>;
  /** Asks these origins about entry `seq`. `id` names the question. */
  ask(id: string, seq: number, origins: readonly string[]): Promise<void>;
  /** The answers so far. */
  answers(id: string): Promise<readonly OriginAnswer[]>;
  /** Ends the question. */
  forget(id: string): Promise<void>;
  /** What this origin is asked and has not answered for good. */
  questions(): Promise<readonly { readonly id: string; readonly seq: number }[]>;
  answer(id: string, answer: Omit<OriginAnswer, 'origin'>): Promise<void>;
}
