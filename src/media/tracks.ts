/**
 * What the tracks of a container hold. Containers that may hold films also hold
 * voice messages, and only the list of tracks shows the difference.
 */
export interface Tracks {
  readonly picture: boolean;
  readonly sound: boolean;
}

export const NO_TRACKS: Tracks = { picture: false, sound: false };

export function addTracks(one: Tracks, other: Tracks): Tracks {
  return { picture: one.picture || other.picture, sound: one.sound || other.sound };
}
