/** What a promise adds to a read that hits: the same read, awaited and not. */
import { hotReads } from "./workloads.ts";

const { now, later } = await hotReads();
const group = "read 4k hot";

Deno.bench({
  name: "readSync(), 1000 of them",
  group,
  baseline: true,
  fn: () => {
    for (let i = 0; i < 1000; i++) now();
  },
});

Deno.bench({
  name: "await read(), 1000 of them",
  group,
  fn: async () => {
    for (let i = 0; i < 1000; i++) await later();
  },
});
