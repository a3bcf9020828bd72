/**
 * Spoilt images, in any number.
 *
 * ```sh
 * deno task fuzz:xfs --images 10000 --seed 1 --shard 1/4
 * ```
 *
 * An image is known by its seed. A worker tries them: only from outside can one see that
 * an image hangs it.
 *
 * @module
 */

import { parseShare, runShare } from "../stress/cli.ts";
import type { Answer } from "./worker.ts";

/** An image takes some 15 ms; the first waits until there are images to spoil. */
const HANG_MS = 120_000;
const MOST_MEMORY = 3 * 2 ** 30;

const share = parseShare(Deno.args, "images", 10_000);
const worker = new Worker(new URL("./worker.ts", import.meta.url), {
  type: "module",
});

/** What comes of one image. */
function tryImage(seed: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const fail = (why: string) => reject(new Error(`image ${seed}: ${why}`));
    const timer = setTimeout(() => fail("it hangs"), HANG_MS);
    worker.onmessage = ({ data }) => {
      clearTimeout(timer);
      resolve(data as Answer);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      clearTimeout(timer);
      fail(event.message);
    };
    worker.postMessage(seed);
  });
}

let mounted = 0;
let noticed = 0;
let memory = 0;
try {
  const images = await runShare(share, share.count, async (i) => {
    const seed = share.seed + i;
    const answer = await tryImage(seed);
    if (answer.failure !== null) {
      throw new Error(`image ${seed}: ${answer.failure}`);
    }
    if (answer.mounted) mounted++;
    if (answer.noticed) noticed++;
    memory = Math.max(memory, Deno.memoryUsage().rss);
    if (memory > MOST_MEMORY) throw new Error(`image ${seed}: ${memory} bytes`);
  });
  console.log(
    `${images} images, ${mounted} mounted, ${noticed} found corrupt, ` +
      `at most ${Math.round(memory / 2 ** 20)} MiB in use`,
  );
} finally {
  worker.terminate();
}
