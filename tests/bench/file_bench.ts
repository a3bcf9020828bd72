/**
 * Reads and writes through the public file, one operation an iteration, beside
 * memfs, node:fs on tmpfs, and the copy that none of them can do without.
 */
import { peersOf, type Workload, WORKLOADS } from "./workloads.ts";

for (const workload of Object.values<Workload>(WORKLOADS)) {
  for (const [peerName, peer] of await peersOf(workload)) {
    Deno.bench({
      name: peerName,
      group: workload.name,
      baseline: peerName === "iomap",
      fn: workload.op(peer),
    });
  }
}
