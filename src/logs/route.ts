/** What a path is, for logs and metrics: one word of a closed list. Pure. */

export const ROUTES = [
  'original',
  'thumb',
  'info',
  'media',
  'links',
  'uploads',
  'admin',
  /** What edges ask the origin for besides media. */
  'internal',
  'health',
  'other',
] as const;
export type RouteName = (typeof ROUTES)[number];

const MEDIA = '/v1/media/';

export function routeOf(path: string): RouteName {
  if (path.startsWith(MEDIA)) {
    if (path.endsWith('/thumb')) return 'thumb';
    if (path.endsWith('/info')) return 'info';
    return path.indexOf('/', MEDIA.length) < 0 ? 'original' : 'media';
  }
  if (path === '/v1/media') return 'media';
  if (path.startsWith('/v1/uploads')) return 'uploads';
  if (path.startsWith('/v1/admin/')) return 'admin';
  if (path.startsWith('/internal/')) return 'internal';
  if (path === '/v1/links') return 'links';
  return path === '/healthz' || path === '/readyz' ? 'health' : 'other';
}
