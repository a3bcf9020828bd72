import { runFullDevice } from "./full_device.ts";

const MiB = 2 ** 20;

Deno.test("xfs gives ENOSPC when it is written to, never at writeback, and all space back", async () => {
  await runFullDevice({ seed: 1, rounds: 4, size: 16 * MiB });
});

Deno.test("xfs with all its trees gives ENOSPC when it is written to, and all space back", async () => {
  const mkfs = { rmapbt: true, blockSize: 1024 };
  await runFullDevice({ seed: 2, rounds: 4, size: 16 * MiB, mkfs });
});
