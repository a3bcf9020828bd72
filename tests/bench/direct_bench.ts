/** Direct reads a second through the whole stack. */
import { figure } from "./figures.ts";
import { DirectReads } from "./workloads.ts";

const ops = 16_384;
const reads = await DirectReads.make();
figure({
  group: "direct reads",
  name: "4k random, queue depth 32",
  ops,
  target: 400e3,
  fn: () => reads.run(ops),
});
