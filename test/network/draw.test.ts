/**
 * `cni draw`: what it shows is what the kernel has, and all of it can be read.
 * Runs once: it starts agents itself, so that the plugins' calls cost no processes.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Browser } from 'puppeteer-core';
import { type Box, type Drawing, measure, openFile, startBrowser } from '../support/browser.ts';
import { sample } from '../support/chain.ts';
import { directory } from '../support/command.ts';
import { type Host, makeHost, type Pod, startAgent } from '../support/host.ts';
import { ipJson } from '../support/observe.ts';
import { addTo, cniIn, configure, hostileName, makeFullHost, makeVariedHost } from '../support/picture.ts';

test('a host of many kinds: everything is in the picture, the page and the text', async (t) => {
  const { host, pods } = await makeVariedHost(t);
  const hostile = await addTo(host, 'ptpnet', { name: hostileName });
  const browser = await startBrowser(t);
  const svg = await draw(t, host, 1, '--svg', '-');
  const drawing = await measure(browser, svg);
  mustBeReadable(t, drawing);
  mustBeReadable(t, await measure(browser, svg, 'dark'));

  const nodes = new Map(drawing.nodes.map((node) => [node.texts[0]!.text, node]));
  const stateOf = (title: string) => nodes.get(title)?.classes.find((name) => name.startsWith('is-'));
  const joined = (from: string, to: string) =>
    drawing.edges.find((edge) => edge.from === nodes.get(from)?.id && edge.to === nodes.get(to)?.id);
  // What the pods really have.
  for (const name of ['web-1', 'dual-1', 'ptp-1', 'mac-1', 'overlay-1']) {
    const node = nodes.get(`default/${name}`);
    const lines = node?.texts.map(({ text }) => text) ?? [];
    for (const address of await addressesOf(pods[name]!))
      t.true(lines.includes(address), `${name} ${address}`);
    t.is(stateOf(`default/${name}`), 'is-ok', name);
    t.true(lines.includes('ok'), name);
  }
  t.is(stateOf('default/broken'), 'is-broken');
  t.regex(textOf(drawing, 'default/broken'), /\nbroken\n.*failed CHECK/);
  t.is(stateOf('default/gone'), 'is-orphaned');
  t.regex(textOf(drawing, 'default/gone'), /\norphaned\nits network namespace is gone/);
  // By which interface of the host each is reached.
  for (const [place, name] of [
    ['bridge cni0', 'web-1'],
    ['bridge cni1', 'dual-1'],
    ['network ptpnet', 'ptp-1'],
    ['bridge flannel0', 'overlay-1'],
  ] as const)
    t.deepEqual(joined(place, `default/${name}`)?.label, [await hostEndOf(host, pods[name]!)], name);
  for (const name of ['mac-1', 'dual-1'])
    t.deepEqual(joined('eth0', `default/${name}`)?.label, ['macvlan, bridge mode']);
  t.deepEqual(joined('Outside', 'default/web-1')?.label, ['8080:80/tcp', '8443:443/tcp']);
  t.deepEqual(joined('Outside', 'default/dual-1')?.label, ['5353:53/udp']);
  t.is(joined('Outside', 'default/ptp-1'), undefined);
  t.deepEqual(joined('Outside', 'eth0')?.classes, ['edge', 'link']);
  for (const place of ['bridge cni0', 'bridge cni1', 'network ptpnet'])
    t.deepEqual(joined('eth0', place)?.classes, ['edge', 'masqueraded'], place);
  t.deepEqual(joined('eth0', 'bridge flannel0')?.label, ['routed']);
  t.deepEqual(joined('flannel.1', 'bridge flannel0')?.classes, ['edge', 'overlay']);
  t.deepEqual(joined('Other nodes', 'flannel.1')?.classes, ['edge', 'overlay']);
  t.regex(textOf(drawing, 'flannel.1'), /to 10\.244\.2\.0\/24/);
  t.regex(textOf(drawing, 'eth0'), /192\.0\.2\.10\/24\n2001:db8::10\/64/);
  t.regex(textOf(drawing, 'bridge cni1'), /10\.90\.0\.1\/16\nfd00:10:90::1\/64\nnetwork dualnet/);
  // A name that would be markup is text, and its control characters are gone.
  const all = drawing.nodes.map(({ texts }) => texts.map(({ text }) => text).join('')).join('\n');
  t.true(all.includes('default/<script>alert("1&2")</script>'));
  t.false(svg.includes('\u001b'));
  t.false(svg.includes('<script'));

  await t.notThrowsAsync(tryPage(t, host, browser));

  for (const columns of [40, 100]) {
    const lines = (await draw(t, host, 1, `--columns-of=${columns}`)).split('\n');
    t.deepEqual(
      lines.filter((line) => [...line].length > columns),
      [],
      `${columns} columns`,
    );
    const text = lines.join('\n');
    t.false(text.includes('\u001b'));
    for (const title of nodes.keys())
      t.true(squeeze(text).includes(squeeze(title)), `${title} in ${columns} columns`);
    for (const word of ['published: 8080:80/tcp', 'broken', 'orphaned', 'failed CHECK'])
      t.true(squeeze(text).includes(squeeze(word)), `${word} in ${columns} columns`);
  }
  await hostile.remove();
});

test('thirty pods are a list that shows every one of them', async (t) => {
  const host = await makeFullHost(t, 30);
  const browser = await startBrowser(t);
  const drawing = await measure(browser, await draw(t, host, 1, '--svg', '-'));
  mustBeReadable(t, drawing);
  const list = drawing.nodes.find(({ classes }) => classes.includes('list'))!;
  const texts = list.texts.map(({ text }) => text);
  t.is(texts[0], '30 attachments of bridge cni0');
  t.is(texts[1], '1 broken, 29 ok');
  for (let i = 1; i <= 30; i++) t.true(texts.includes(`default/web-${i}-7d4b9c6f5d-x${1000 + i}`), `${i}`);
  t.is(texts.filter((text) => text === 'ok').length, 29);
  t.deepEqual(
    texts.slice(2, 5).filter((text) => /web-7-|broken/.test(text)).length,
    2,
    'the broken one is first',
  );
  t.regex(texts.slice(-3).join(' '), /web-7-.*failed CHECK/);
  t.deepEqual(
    texts.filter((text) => text.endsWith('80/tcp')),
    [10, 20, 30].map((i) => `${8000 + i}:80/tcp`),
  );
  t.deepEqual(drawing.edges.find(({ classes }) => classes.includes('published'))?.label, [
    '3 published ports',
  ]);
  const lines = (await draw(t, host, 1, '--columns-of=80')).split('\n');
  const states = lines
    .filter((line) => /^ +default\/web-\S+ .*(?:ok|broken)$/.test(line))
    .map((line) => line.search(/(?:ok|broken)$/));
  t.deepEqual([states.length, [...new Set(states)].length], [30, 1], 'states in one column');
  t.true(lines.some((line) => line.trim() === '3 published ports'));
  const file = join(directory(t), 'full.html');
  await draw(t, host, 1, '--html', file);
  const { page } = await openFile(browser, file);
  await page.hover('.node.list');
  t.regex(
    await page.$eval('#about', (about) => about.textContent!),
    /^30 attachments of bridge cni0\n1 broken, 29 ok\ndefault\/web-7-\S+: Plugin "bridge" failed CHECK/,
    'the list itself is not told once more',
  );
  await page.type('#search', 'web-7-');
  t.is(await page.$eval('#found', (found) => found.textContent), '1 found');
  const { right, bottom, left, top } = drawing.picture;
  t.true(right - left < 2400 && bottom - top < 1400, 'it fits a large screen, nearly');
});

test('many places with some pods each are drawn as lists before the picture gets too tall', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const names = ['one', 'two', 'three'];
  const networks = names.map((name, i) => ({
    ...{ cniVersion: '1.1.0', name },
    plugins: [
      { type: 'bridge', bridge: `br-${name}`, ipam: { type: 'host-local', subnet: `10.5${i}.0.0/24` } },
    ],
  }));
  configure(host, ...networks);
  const titles = async () =>
    [...(await draw(t, host, 0)).matchAll(/(\d+) attachments of bridge (\S+)/g)].map(([text]) => text);
  for (const [name, number] of [
    ['one', 10],
    ['two', 9],
    ['three', 5],
  ] as const)
    await Promise.all(Array.from({ length: number }, () => addTo(host, name)));
  t.deepEqual(await titles(), []);
  await addTo(host, 'three');
  t.deepEqual(await titles(), ['10 attachments of bridge br-one']);
});

test('ports of a bridge that no runtime knows of are shown, and what cannot be written is said', async (t) => {
  const host = await makeHost(t);
  configure(host, sample('10-bridge.conflist'));
  const pod = await addTo(host, 'podnet');
  const port = await hostEndOf(host, pod);
  await host.run(['sh', '-c', 'rm /var/lib/cni/results/* /var/lib/cni/networks/podnet/10.*']);
  await host.run(['sh', '-c', 'iptables -t nat -F; iptables -t nat -X']);
  const text = await draw(t, host, 0);
  t.regex(
    text,
    new RegExp(`bridge cni0[\\s\\S]*─ ${port}\\n +unchecked\\n +a port that no recorded attachment has`),
  );
  const refused = await cniIn(host, ['draw', '--svg', '/proc/nowhere/x.svg']);
  t.is(refused.exit, 1);
  t.regex(refused.stderr, /Cannot write the picture to "\/proc\/nowhere\/x\.svg"\n +ENOENT/);
  t.is((await cniIn(host, ['draw', '--svg'])).exit, 2);
});

/** Runs `cni draw`, in a terminal of some width if that is given. @param code it exits with. */
async function draw(t: ExecutionContext, host: Host, code: number, ...args: string[]): Promise<string> {
  const columns = args[0]?.split('--columns-of=')[1];
  const { exit, stdout, stderr } = columns
    ? await cniIn(host, ['draw'], { COLUMNS: columns })
    : await cniIn(host, ['draw', ...args]);
  t.is(exit, code, stderr);
  return stdout;
}

/** Zooms, searches and hovers as a person would. */
async function tryPage(t: ExecutionContext, host: Host, browser: Browser): Promise<void> {
  const file = join(directory(t), 'host.html');
  await draw(t, host, 1, '--html', file);
  t.false(
    /(?:src|href)=|url\((?!#)|@import/.test(readFileSync(file, 'utf8')),
    'nothing is loaded from elsewhere',
  );
  const { page, seen } = await openFile(browser, file);
  const viewBox = () => page.$eval('#view svg', (svg) => svg.getAttribute('viewBox')!.split(' ').map(Number));
  const whole = await viewBox();
  const web = (await page.$('.node[data-id^="pod:"]'))!;
  const { x, y, width } = (await web.boundingBox())!;
  await page.mouse.move(x + 5, y + 5);
  t.true((await page.$$eval('.node.faint', (all) => all.length)) > 0, 'what is not joined to it is faint');
  t.regex(await page.$eval('#about', (about) => about.textContent!), /default\//);
  await page.mouse.wheel({ deltaY: -400 });
  const zoomed = await viewBox();
  t.true(zoomed[2]! < whole[2]! / 2);
  const after = (await web.boundingBox())!;
  t.true(after.width > width * 2, 'it is larger');
  t.true(after.x < x + 5 && x + 5 < after.x + after.width, 'and still under the pointer');
  await page.mouse.down();
  await page.mouse.move(x + 105, y + 55);
  await page.mouse.up();
  const dragged = (await web.boundingBox())!;
  t.true(Math.abs(dragged.x - after.x - 100) < 2 && Math.abs(dragged.y - after.y - 50) < 2, 'it follows');
  await page.click('#fit');
  t.deepEqual(await viewBox(), whole);
  await page.keyboard.press('+');
  t.true((await viewBox())[2]! < whole[2]!);
  await page.type('#search', '10.90.0.2');
  const matches = () =>
    page.$$eval('.node.match', (all) => all.map((one) => one.querySelector('text')!.textContent));
  t.deepEqual(await matches(), ['default/dual-1']);
  t.is(await page.$eval('#found', (found) => found.textContent), '1 found');
  await page.type('#search', 'x');
  t.deepEqual(await matches(), []);
  t.is(await page.$eval('#found', (found) => found.textContent), 'Nothing found');
  t.deepEqual(seen, []);
}

/** Texts are in their boxes, boxes and labels do not overlap, all is in the picture, contrast is enough. */
function mustBeReadable(t: ExecutionContext, { fault, picture, nodes, edges, texts }: Drawing): void {
  t.is(fault, '');
  t.true(nodes.length > 2);
  for (const node of nodes)
    for (const text of node.texts) {
      t.true(isWithin(text, node), `"${text.text}" is within its box`);
      t.true(text.contrast >= 4.5, `"${text.text}" has a contrast of ${text.contrast.toFixed(1)}`);
      for (const other of node.texts)
        t.false(other !== text && overlap(other, text), `"${text.text}" is on "${other.text}"`);
    }
  for (const text of texts) t.true(isWithin(text, picture), `"${text.text}" is in the picture`);
  const boxes = [
    ...nodes.map((node) => ({ name: node.id, box: node as Box })),
    ...edges.flatMap(({ label, labelBox }) => (labelBox ? { name: label.join(), box: labelBox } : [])),
  ];
  for (const [i, { name, box }] of boxes.entries())
    for (const other of boxes.slice(i + 1)) t.false(overlap(box, other.box), `${name} is on ${other.name}`);
}

function isWithin(inner: Box, outer: Box): boolean {
  return (
    inner.left >= outer.left &&
    inner.right <= outer.right &&
    inner.top >= outer.top &&
    inner.bottom <= outer.bottom
  );
}

/** Adjacent lines of text touch: half a pixel is no overlap. */
function overlap(a: Box, b: Box): boolean {
  const common = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  return common > 0.5 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
}

/** All that a box says, a line each. */
function textOf({ nodes }: Drawing, title: string): string {
  const node = nodes.find(({ texts }) => texts[0]?.text === title);
  return node?.texts.map(({ text }) => text).join('\n') ?? '';
}

/** A text without white space, and without the lines of the tree. */
function squeeze(text: string): string {
  return text.replace(/[\s│├└─]/g, '');
}

/** The pod's own addresses, as ip(8) shows them. */
async function addressesOf(pod: Pod): Promise<string[]> {
  const links = await ipJson<{ ifname: string; addr_info: { local: string; scope: string }[] }>(
    pod,
    'address',
  );
  return links.flatMap(({ addr_info }) =>
    addr_info.filter(({ scope }) => scope === 'global').map(({ local }) => local),
  );
}

/** The host's end of the veth pair that is a pod's eth0, as the kernel has it. */
async function hostEndOf(host: Host, pod: Pod): Promise<string> {
  const [own] = await ipJson<{ link_index: number }>(pod, 'link', 'show', 'eth0');
  const links = await ipJson<{ ifindex: number; ifname: string }>(host, 'link');
  return links.find(({ ifindex }) => ifindex === own!.link_index)!.ifname;
}
