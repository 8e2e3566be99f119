/** What a check is: one promise of the service by a short name, and how it is tried from outside. */
import type { Place, World } from './world.js';

export const SECTIONS = [
  'ids and errors',
  'tokens',
  'links',
  'uploads',
  'resumable uploads',
  'downloads',
  'conditions and ranges',
  'thumbnails',
  'documents',
  'edge',
  'takedown',
  'several origins',
  'webhooks',
] as const;

export type Section = (typeof SECTIONS)[number];

export type Check =
  | {
      readonly kind: 'tried';
      readonly name: string;
      readonly section: Section;
      readonly says: string;
      /** Where it is tried. */
      readonly at: readonly Place['name'][];
      run(world: World, at: Place): Promise<void>;
    }
  /** Nobody outside can see whether it is kept. */
  | {
      readonly kind: 'unseen';
      readonly name: string;
      readonly section: Section;
      readonly says: string;
      readonly why: string;
    };

type Run = (world: World, at: Place) => Promise<void>;

/** Makes the checks of one section. */
export function checksOf(section: Section) {
  const make =
    (at: readonly Place['name'][]) =>
    (name: string, says: string, run: Run): Check => ({ kind: 'tried', section, name, says, at, run });
  return {
    /** Tried at the edge and at the origin. */
    both: make(['edge', 'origin']),
    edge: make(['edge']),
    origin: make(['origin']),
    unseen: (name: string, says: string, why: string): Check => ({ kind: 'unseen', section, name, says, why }),
  };
}
