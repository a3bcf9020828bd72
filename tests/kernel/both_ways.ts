/**
 * What we write, the kernel reads, and the other way round.
 *
 * An image that random operations of ours have filled goes to a file; `xfs_repair -n`
 * must find nothing, and the kernel the tree, names, attributes and bytes that a model of
 * it holds. Then the kernel changes it, and we have to find what the kernel does.
 *
 * @module
 */

import { fsckXfs } from "../../fs/xfs/fsck/fsck.ts";
import { Prng } from "../../lib/prng.ts";
import { mount } from "../../mod.ts";
import { xfs } from "../fs/xfs/fixture.ts";
import { Image } from "../fs/xfs/image.ts";
import { OPTION_SETS } from "../fs/xfs/option_sets.ts";
import {
  Fingerprint,
  type Found,
  listing,
  listingDifference,
  listMount,
} from "../fs/xfs/tree_listing.ts";
import { runTreeStress } from "../fs/xfs/tree_stress.ts";
import type { Libc } from "./libc.ts";
import { repair, withMount } from "./loop.ts";
import { Operations } from "./ops.ts";

const KiB = 1024;

/** One round. @returns What is wrong. */
export async function bothWays(
  libc: Libc,
  dir: string,
  set: number,
  seed: number,
  ops: number,
): Promise<string[]> {
  const [name, mkfs] = OPTION_SETS[set]!;
  const path = `${dir}/both-${set}.img`;
  const mnt = `${dir}/mnt`;
  const complaints: string[] = [];
  const judge = (what: string, said: string) => {
    if (said !== "") complaints.push(`${what}: ${said}`);
  };
  const begun = performance.now();
  const { device, lines } = await runTreeStress({ seed, ops, mkfs });
  writeImage(path, Image.of(device).data);
  judge("xfs_repair of ours", repair(path, 4));
  let theirs: string[] = [];
  withMount(path, mnt, () => {
    judge("the kernel reads", listingDifference(lines, listHost(libc, mnt)));
    changeByKernel(libc, mnt, seed, ops / 10);
    theirs = listHost(libc, mnt);
  });
  judge("xfs_repair of the kernel's", repair(path, 4));
  const image = new Image(Deno.readFileSync(path));
  judge("fsck", fsckXfs(image).findings.join("\n"));
  const changed = image.device();
  const fs = await mount(changed, xfs);
  judge("we read", listingDifference(theirs, await listMount(fs)));
  await fs.unmount();
  changed.close();
  const ms = Math.round(performance.now() - begun);
  console.log(
    `both ways, seed ${seed} ${name}: ${ops} operations, ` +
      `${lines.length} and ${theirs.length} names, ${ms} ms, ` +
      (complaints.length === 0 ? "equal" : "NOT equal"),
  );
  if (complaints.length === 0) Deno.removeSync(path);
  return complaints;
}

/** A sparse file. */
function writeImage(path: string, data: Uint8Array): void {
  using file = Deno.openSync(path, {
    write: true,
    create: true,
    truncate: true,
  });
  file.truncateSync(data.length);
  for (let at = 0; at < data.length; at += 64 * KiB) {
    const part = data.subarray(at, at + 64 * KiB);
    if (part.every((byte) => byte === 0)) continue;
    file.seekSync(at, Deno.SeekMode.Start);
    for (let n = 0; n < part.length;) n += file.writeSync(part.subarray(n));
  }
}

/** What is below a directory of the host. */
export function listHost(libc: Libc, root: string): string[] {
  const found: Found[] = [];
  const visit = (path: string): void => {
    const host = `${root}${path}`;
    const info = Deno.lstatSync(host);
    const { isFile, isDirectory, isSymlink } = info;
    let holds = "";
    if (isSymlink) holds = Deno.readLinkSync(host);
    else if (isFile) holds = hostHolds(libc, host, info.size);
    found.push({
      path,
      mode: info.mode!,
      nlink: info.nlink!,
      holds,
      xattrs: isSymlink ? null : libc.xattrs(host),
    });
    if (!isDirectory) return;
    for (const { name } of Deno.readDirSync(host)) visit(`${path}/${name}`);
  };
  visit("");
  return listing(found);
}

/** Size and checksum of a file of the host. */
function hostHolds(libc: Libc, path: string, size: number): string {
  const print = new Fingerprint();
  const buffer = new Uint8Array(256 * KiB);
  const fd = libc.open(path, 0);
  for (let at = 0; at < size;) {
    const from = libc.seekData(fd, at);
    if (from < 0) break;
    at = from - from % KiB;
    const n = libc.pread(fd, buffer, at);
    print.add(at, buffer.subarray(0, n));
    at += buffer.length;
  }
  libc.close(fd);
  return print.holds(size);
}

/** Random operations on what is there, and on more. */
function changeByKernel(
  libc: Libc,
  mnt: string,
  seed: number,
  count: number,
): void {
  const random = new Prng(seed, "kernel");
  const files: string[] = [];
  const dirs: string[] = [];
  const visit = (dir: string): void => {
    dirs.push(dir);
    for (const { name, isFile, isDirectory } of Deno.readDirSync(dir)) {
      const path = `${dir}/${name}`;
      if (isDirectory) visit(path);
      else if (isFile && random.below(2) === 0) files.push(path);
    }
  };
  visit(mnt);
  const ops = new Operations(libc, mnt, seed);
  ops.adopt(files, dirs);
  for (let i = 0; i < count; i++) ops.step();
}
