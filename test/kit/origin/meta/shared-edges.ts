/** What origins tell each other about edges, in memory: one for each of the origins of a test, over the same records. */
import type { OriginAnswer, RecordedEdge, SharedEdges } from '../../../../origin/meta/origins/shared-edges.js';

export class SharedRecords {
  readonly edges = new Map<string, RecordedEdge & { readonly origin: string }>();
  readonly questions: { id: string; seq: number; origin: string; answer: OriginAnswer | undefined }[] = [];

  of(origin: string): SharedEdges {
    return {
      record: async (given) => {
        const keys = new Set(given.map(keyOf));
        for (const [key, each] of this.edges) if (each.origin === origin && !keys.has(key)) this.edges.delete(key);
        for (const each of given) {
          const before = this.edges.get(keyOf(each));
          const isLater = before === undefined || before.connectedAgoMs > each.connectedAgoMs;
          if (before?.origin === origin || isLater) this.edges.set(keyOf(each), { ...each, origin });
        }
        const away = new Set(given.filter(({ connected }) => !connected).map(({ edge }) => edge));
        const others = [...this.edges.values()].filter((each) => each.origin !== origin && each.connected);
        return others.map(({ edge }) => edge).filter((edge) => away.has(edge));
      },
      elsewhere: async () => [...this.edges.values()].filter((each) => each.origin !== origin),
      ask: async (id, seq, origins) => {
        for (const each of origins) this.questions.push({ id, seq, origin: each, answer: undefined });
      },
      answers: async (id) => this.questions.filter((each) => each.id === id).flatMap(({ answer }) => answer ?? []),
      forget: async (id) => {
        for (let at = this.questions.length - 1; at >= 0; at -= 1) {
          if (this.questions[at]?.id === id) this.questions.splice(at, 1);
        }
      },
      questions: async () => this.questions.filter((each) => each.origin === origin && each.answer?.isFinal !== true),
      answer: async (id, answer) => {
        for (const each of this.questions) {
          if (each.id === id && each.origin === origin) each.answer = { ...answer, origin };
        }
      },
    };
  }
}

function keyOf({ edge, instance }: RecordedEdge): string {
  return JSON.stringify([edge, instance]);
}
