/**
 * What an `endIo` may do: all that can be done to a device.
 *
 * Goal: every bio ends once, whatever is done from within the end of one of them.
 * Method: each action in the end of an early, a middle and the last of twelve bios, on
 * devices that end bios within their submission and on slow ones, with tags for few and
 * for all, under a plug and without. Oracle: the count of ends.
 */
import { assertEquals } from "@std/assert";
import {
  Bio,
  blkFinishPlug,
  blkMarkDiskDead,
  blkMqFreezeQueue,
  blkMqUnfreezeQueue,
  blkStartPlug,
  type BlockDevice,
  LinearDevice,
  REQ_FUA,
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_PREFLUSH,
  StripeDevice,
  submitBio,
} from "../../block/mod.ts";
import { createNvme, type NvmeDevice, VirtualClock } from "../../mod.ts";
import { settle } from "./fake_device.ts";

/** Does something to a device; `more` submits another bio to it. */
type Action = (device: NvmeDevice, more: () => void) => void;

const ACTIONS: Record<string, Action> = {
  "submits": (_device, more) => {
    more();
    more();
  },
  "submits under a plug": (_device, more) => {
    blkStartPlug();
    more();
    blkFinishPlug();
  },
  "freezes and thaws": (device, more) => {
    blkMqFreezeQueue(device.queue);
    more();
    blkMqUnfreezeQueue(device.queue);
  },
  "marks the disk dead": (device) => blkMarkDiskDead(device.queue),
  "cuts the power": (device) => void device.powerCut(),
  "cuts the power and brings it back": (device, more) => {
    device.powerCut();
    device.powerOn();
    more();
  },
  "turns on what is on": (device) => device.powerOn(),
  "disconnects": (device) => device.disconnect(),
  "resets": (device) => device.reset(),
  "closes": (device) => device.close(),
};

const OPS = [
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_OP_WRITE | REQ_FUA,
  REQ_OP_WRITE | REQ_PREFLUSH,
];

const LAYERS: Record<string, (device: NvmeDevice) => BlockDevice> = {
  none: (device) => device,
  linear: (device) => new LinearDevice(device, { startSector: 8 }),
  stripe: (device) => new StripeDevice([device], { chunkSectors: 8 }),
};

/** How often each of twelve bios, and what the action adds, has ended. */
function ends(
  device: NvmeDevice,
  top: BlockDevice,
  at: number,
  action: Action,
): number[] {
  const times: number[] = [];
  const send = (i: number, then?: () => void) => {
    const bio = new Bio(top, OPS[i % OPS.length]!);
    bio.sector = 64 * i;
    bio.addData(new Uint8Array(16384), 0, 16384);
    const id = times.push(0) - 1;
    bio.endIo = () => {
      times[id]!++;
      then?.();
    };
    submitBio(bio);
  };
  for (let i = 0; i < 12; i++) {
    send(i, i === at ? () => action(device, () => send(0)) : undefined);
  }
  return times;
}

interface Case {
  preset: "null" | "optane" | "mlc-970pro";
  layer: (device: NvmeDevice) => BlockDevice;
  depth: number;
  plugged: boolean;
  /** Which bio's end it is. */
  at: number;
}

function* cases(): Generator<Case> {
  for (const preset of ["null", "optane", "mlc-970pro"] as const) {
    for (const layer of Object.values(LAYERS)) {
      for (const [depth, at] of [[4, 0], [4, 5], [64, 5], [64, 11]] as const) {
        for (const plugged of [false, true]) {
          yield { preset, layer, depth, plugged, at };
        }
      }
    }
  }
}

for (const [name, action] of Object.entries(ACTIONS)) {
  Deno.test(`an endIo that ${name} leaves no bio without its end`, () => {
    for (const { preset, layer, depth, plugged, at } of cases()) {
      const clock = new VirtualClock();
      const device = createNvme(clock, { size: 2 ** 24, preset, depth });
      if (plugged) blkStartPlug();
      const times = ends(device, layer(device), at, action);
      if (plugged) blkFinishPlug();
      settle(clock);
      assertEquals(times, times.map(() => 1));
      device.close();
    }
  });
}
