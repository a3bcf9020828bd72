/**
 * What a call leaves on the heap.
 */

/** Calls between two looks at the heap: too few for a collection in most of them. */
const WINDOW = 2000;

/**
 * Bytes that a call of `op` allocates: the median over windows of {@linkcode WINDOW}
 * calls, since one in which garbage was collected says nothing.
 *
 * @param calls Altogether, after as many again to warm up: what has not been
 *   optimized allocates the numbers that it calculates with.
 */
export function bytesPerCall(op: () => void, calls: number): number {
  for (let i = 0; i < calls; i++) op();
  const grown: number[] = [];
  for (let i = 0; i < calls; i += WINDOW) {
    const before = Deno.memoryUsage().heapUsed;
    for (let j = 0; j < WINDOW; j++) op();
    grown.push(Deno.memoryUsage().heapUsed - before);
  }
  grown.sort((a, b) => a - b);
  return grown[grown.length >> 1]! / WINDOW;
}
