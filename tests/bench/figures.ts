/**
 * Benchmarks that also say how many a second, and what was aimed at: printed when
 * the last of a file's has run.
 */

interface Figure {
  name: string;
  /** Operations of one iteration. */
  ops: number;
  /** Best time of an iteration, milliseconds. */
  best: number;
  /** Operations a second to be reached, if any. */
  target: number | undefined;
}

const figures: Figure[] = [];

/** What {@linkcode figure} takes. */
export interface FigureOptions {
  group: string;
  name: string;
  /** Operations of one call of `fn`. */
  ops: number;
  /** Operations a second to be reached. */
  target?: number;
  /** What is to be done before each iteration, and is not measured. */
  before?: () => void;
  fn: () => void | Promise<void>;
}

/** Registers a benchmark whose iteration is `ops` operations. */
export function figure(
  { group, name, ops, target, before, fn }: FigureOptions,
): void {
  const mine: Figure = {
    name: `${group}: ${name}`,
    ops,
    best: Infinity,
    target,
  };
  figures.push(mine);
  Deno.bench({
    group,
    name: `${name}, ${ops} of them`,
    fn: async (b) => {
      before?.();
      b.start();
      const start = performance.now();
      await fn();
      mine.best = Math.min(mine.best, performance.now() - start);
      b.end();
    },
  });
}

/** `1234567` as `1.23 M`. */
function si(n: number): string {
  if (n >= 1e6) return `${(n / 1e6).toFixed(2)} M`;
  return n >= 1e3 ? `${(n / 1e3).toFixed(0)} k` : n.toFixed(0);
}

globalThis.addEventListener("unload", () => {
  for (const { name, ops, best, target } of figures) {
    if (best === Infinity) continue;
    const goal = target === undefined ? "" : ` (to be reached: ${si(target)})`;
    console.log(`${name}: ${si(ops / best * 1000)} a second${goal}`);
  }
});
