/** What a warm process is asked, and what it answers. */

export type WarmOrder = {
  readonly file: string;
  /** The module that is read from the disk anew. */
  readonly changed: string;
};

export type WarmAnswer = { readonly kind: 'ready' } | { readonly kind: 'done'; readonly passed: boolean };
