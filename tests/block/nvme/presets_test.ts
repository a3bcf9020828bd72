/** Models of device by name. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  checkPreset,
  NVME_PRESETS,
  type NvmePresetName,
} from "../../../block/nvme/presets.ts";
import { createNvme } from "../../../block/nvme/mod.ts";
import { BLK_FEAT_ROTATIONAL, BLK_FEAT_ZONED } from "../../../block/mod.ts";
import { VirtualClock } from "../../../lib/clock.ts";

Deno.test("NVME_PRESETS has ten models, of which only null takes no time", () => {
  assertEquals(Object.keys(NVME_PRESETS), [
    "null",
    "optane",
    "optane2",
    "tlc-dc",
    "mlc-970pro",
    "qlc",
    "zns",
    "hdd",
    "smr",
    "pmem",
  ]);
  for (const [name, preset] of Object.entries(NVME_PRESETS)) {
    assertEquals(preset.timing === null, name === "null");
    checkPreset(preset);
    // What is in a buffer is lost with the power unless the drive provides for it.
    const { timing } = preset;
    if (timing?.kind === "flash" || timing?.kind === "zns") {
      assertEquals(timing.powerLossProtected, !preset.volatileCache, name);
    }
    assert(preset.atomicWritePowerFail <= preset.atomicWrite, name);
  }
});

Deno.test("createNvme() makes of each preset what its row says", () => {
  for (const [name, preset] of Object.entries(NVME_PRESETS)) {
    const clock = new VirtualClock();
    const device = createNvme(clock, {
      preset: name as NvmePresetName,
      size: 16 * 2 ** 31,
    });
    const { features } = device.limits;
    assertEquals(device.writeCache, preset.volatileCache, name);
    assertEquals((features & BLK_FEAT_ROTATIONAL) !== 0, preset.rotational);
    assertEquals((features & BLK_FEAT_ZONED) !== 0, preset.zones !== null);
    assertEquals(device.limits.maxDiscardSectors > 0, preset.deallocates);
    device.close();
  }
});

Deno.test("createNvme() refuses a model of one's own whose parameters cannot be", () => {
  const { optane, zns } = NVME_PRESETS;
  const make = (preset: object) => () =>
    createNvme(new VirtualClock(), {
      preset: preset as typeof optane,
      size: 2 ** 30,
    });
  const timing = { ...optane.timing!, units: -1 };
  assertThrows(make({ ...optane, timing }), Error, "units");
  assertThrows(make({ ...optane, timing: 5 }), Error, "timing");
  assertThrows(make({ ...optane, model: undefined }), Error, "model");
  assertThrows(make({ ...zns, zones: null }), Error, "zones");
  make({ ...optane, model: "mine" })().close();
});
