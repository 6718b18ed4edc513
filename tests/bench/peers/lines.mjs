// As lines.py: a line asks, a line answers. Packages are those of the working directory.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { createSocket } from "node:dgram";

export const packages = createRequire(`${process.cwd()}/`);
export const rest = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const begun = () => process.stdout.write("begun\n");
export const POLL_MS = 5;

export async function serve(answers) {
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, ...words] = line.split(" ");
    process.stdout.write(`${await answers[word](...words)}\n`);
  }
}

export async function submitted(submit) {
  const begin = process.hrtime.bigint();
  await submit();
  return begin;
}

const address = process.env.STARTED_ADDRESS ?? "";
const socket = address ? createSocket("udp4") : undefined;
export function tell() {
  const at = process.hrtime.bigint();
  if (socket) socket.send(String(at), Number(address.split(":")[1]), "127.0.0.1");
}
