/**
 * What file systems are made with, so that each feature is on and off somewhere.
 *
 * @module
 */

import type { MkfsXfsOptions } from "../../../fs/xfs/mkfs.ts";

const KiB = 1024;

/** By name. */
export const OPTION_SETS: readonly (readonly [string, MkfsXfsOptions])[] = [
  ["defaults", {}],
  ["blocks of 1 KiB", { blockSize: KiB }],
  ["blocks of 2 KiB, inodes of 1 KiB", { blockSize: 2 * KiB, inodeSize: KiB }],
  ["blocks of 16 KiB, rmapbt", { blockSize: 16 * KiB, rmapbt: true }],
  ["blocks of 64 KiB", { blockSize: 64 * KiB }],
  ["rmapbt", { rmapbt: true }],
  ["rmapbt, blocks of 1 KiB", { rmapbt: true, blockSize: KiB }],
  ["no reflink", { reflink: false }],
  ["no sparse inodes", { sparseInodes: false }],
  ["no finobt, inodes of 2 KiB", { finobt: false, inodeSize: 2 * KiB }],
  ["16 groups", { agCount: 16 }],
  [
    "nrext64, directory blocks of 64 KiB, rmapbt",
    { nrext64: true, dirBlockSize: 64 * KiB, rmapbt: true },
  ],
];
