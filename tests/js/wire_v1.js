// Returns what the client makes of known answers and of what it must refuse. `base` is the URL of the modules.
async ({ base, noble, messages, drafts, heads, headers, targets, paths, answers }) => {
  const { concat, fromBase64url, fromHex, toBase64url, toHex } = await import(`${base}/bytes.js`);
  const { frame } = await import(`${base}/frames.js`);
  const { setupSender } = await import(`${base}/hpke.js`);
  const { keysOf } = await import(`${base}/key_answer.js`);
  const { sealedTarget } = await import(`${base}/place.js`);
  const { SealedAsV1 } = await import(`${base}/sealed_as_v1.js`);
  const { parsedResponseHead, parsedResponseHeader } = await import(`${base}/wire_v1.js`);
  const { xwing } = await import(`${base}/xwing.js`);
  const peer = noble === null ? null : (await import(noble)).ml_kem768_x25519;

  const utf8 = (text) => new TextEncoder().encode(text);
  const named = (error) => `${error.name}: ${error.message}`;
  const outcome = async (attempt) => {
    try {
      return await attempt();
    } catch (error) {
      return named(error);
    }
  };

  // What the owner of a seed makes of an encapsulated key, by noble or by the engine itself.
  async function decapsulated(seed, encapsulatedKey) {
    if (peer) return peer.decapsulate(encapsulatedKey, seed);
    const algorithm = "MLKEM768-X25519";
    const key = await crypto.subtle.importKey("raw-seed", seed, algorithm, false, ["decapsulateBits"]);
    return new Uint8Array(await crypto.subtle.decapsulateBits(algorithm, key, encapsulatedKey));
  }

  // An X-Wing that draws nothing: it finds what a message has.
  function known({ seed, encapsulated_key: encapsulatedKey }) {
    const encapsulate = async () => ({
      encapsulatedKey: fromHex(encapsulatedKey),
      sharedSecret: await decapsulated(fromHex(seed), fromHex(encapsulatedKey)),
    });
    return { id: 0x647a, name: "X-Wing", encapsulate };
  }

  const streamOf = (...pieces) =>
    new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(piece);
        controller.close();
      },
    });

  async function opened(message, { status, stream, header }) {
    const keys = { xwing: { keyId: 1, publicKey: fromHex(message.public_key) } };
    const sealed = await SealedAsV1.seal(keys, { method: "GET", target: "/", body: null }, known(message));
    const open = await sealed.opener(header, status);
    const found = [];
    for await (const { index, plaintext } of open(stream, () => {})) found.push([index, toHex(plaintext)]);
    return found;
  }

  const headerOf = (message) =>
    `1.${toBase64url(fromHex(message.response_nonce))}.${toBase64url(fromHex(message.sealed_response_head))}`;
  const statusOf = (message) => Number.parseInt(new TextDecoder().decode(fromHex(message.response_head)), 10);
  const openedWhole = (message, changed = {}) => {
    const whole = { header: headerOf(message), status: statusOf(message), stream: streamOf(fromHex(message.response_body)) };
    return outcome(() => opened(message, { ...whole, ...changed }));
  };

  const sealed = [];
  for (const message of messages) {
    const context = await setupSender(known(message), fromHex(message.public_key), utf8("server-keys request v1"));
    const head = toHex(await context.seal(fromHex(message.head)));
    const body = [];
    for (const piece of [...message.pieces, ""]) body.push(frame(await context.seal(fromHex(piece))));
    const exported = toHex(await context.exportSecret(utf8("server-keys response v1"), 32));
    sealed.push({ head, body: toHex(concat(...body)), exported });
  }

  // The first message has three frames and the end. Each cut of it, then what no server sends.
  const [first] = messages;
  const body = fromHex(first.response_body);
  const cuts = [];
  for (let length = 0; length < body.length; length++) {
    cuts.push(await openedWhole(first, { stream: streamOf(body.slice(0, length)) }));
  }
  const bytewise = await openedWhole(first, { stream: streamOf(...Array.from(body, (byte) => Uint8Array.of(byte))) });
  const end = body.slice(-20);
  const changed = {};
  for (const [name, bytes] of Object.entries({
    "a byte after the end": concat(body, Uint8Array.of(0)),
    "two ends": concat(body, end),
    "a frame after the end": concat(body, body.slice(0, 29)),
    "an end in the middle": concat(body.slice(0, 29), end, body.slice(29)),
    "no frame but the end": end,
    "an empty length": concat(new Uint8Array(4), body),
    "a length below a tag's": concat(Uint8Array.of(0, 0, 0, 15), new Uint8Array(15), body),
    "a length above the limit": concat(Uint8Array.of(1, 0, 0, 1), body),
    "another bit": body.map((byte, index) => (index === 10 ? byte ^ 1 : byte)),
  })) {
    changed[name] = await openedWhole(first, { stream: streamOf(bytes) });
  }
  const withoutBody = messages.find(({ response_head: head }) => head.endsWith("20656e64"));
  const statuses = {
    another: await openedWhole(first, { status: 500 }),
    swapped: await openedWhole(first, { header: headerOf(withoutBody) }),
    "a body after a head without one": await openedWhole(withoutBody, { stream: streamOf(Uint8Array.of(0)) }),
    "no body after a head without one": await openedWhole(withoutBody, { stream: streamOf() }),
    "no stream after a head without one": await openedWhole(withoutBody, { stream: null }),
    "no stream after a head with one": await openedWhole(first, { stream: null }),
  };

  const kem = await xwing();
  const draft = [];
  for (const { seed, ct } of drafts) draft.push(toHex(await decapsulated(fromHex(seed), fromHex(ct))));
  const own = kem === null ? null : [];
  for (const { seed, pk } of kem === null ? [] : drafts) {
    const { encapsulatedKey, sharedSecret } = await kem.encapsulate(fromHex(pk));
    own.push([encapsulatedKey.length, toHex(sharedSecret) === toHex(await decapsulated(fromHex(seed), encapsulatedKey))]);
  }
  const refused = kem === null ? null : [];
  for (const publicKey of kem === null ? [] : answers.unusable) {
    refused.push(await outcome(() => setupSender(kem, fromHex(publicKey), utf8(""))));
  }

  const request = {};
  for (const [name, { method, target, body: text }] of Object.entries(heads)) {
    const seen = [];
    const context = known(first);
    const keys = { xwing: { keyId: 7, publicKey: fromHex(first.public_key) } };
    const made = await SealedAsV1.seal(keys, { method, target, body: text === null ? null : utf8(text) }, context);
    for (const ciphertext of made.ciphertexts) seen.push(ciphertext.length - 16);
    request[name] = { header: made.header, plaintexts: seen };
  }

  return {
    sealed,
    opened: await Promise.all(messages.map((message) => openedWhole(message))),
    cuts,
    bytewise,
    changed,
    statuses,
    draft,
    own,
    refused,
    kem: kem?.name ?? null,
    request,
    headers: await Promise.all(
      headers.map((value) =>
        outcome(() => {
          const { nonce, sealedHead } = parsedResponseHeader(value);
          return [toHex(nonce), toHex(sealedHead)];
        }),
      ),
    ),
    responseHeads: await Promise.all(
      ["200", "204 end", "099", "2000", "200 End", "200 end end", " 200", "200 ", "", "200\n"].map((text) =>
        outcome(() => parsedResponseHead(utf8(text))),
      ),
    ),
    base64url: await Promise.all(
      ["", "AA", "AB", "AAE", "AAF", "A", "AAAA", "AAAAA", "AA==", "A+", "A/", "-_8", "AA\n", "Ä"].map((text) =>
        outcome(() => toHex(fromBase64url(text))),
      ),
    ),
    targets: await Promise.all(targets.map(([url, keyUrl]) => sealedTarget(new URL(url), new URL(keyUrl)))),
    sent: await Promise.all(
      paths.map(async (path) => {
        const url = new URL(path);
        return [url.pathname, url.search.slice(1), await sealedTarget(url, new URL("/.well-known/hpke-keys", url))];
      }),
    ),
    answers: await Promise.all(
      answers.given.map((hex) =>
        outcome(() => {
          const { x25519, xwing: key } = keysOf(fromHex(hex));
          return [toHex(x25519), key && [key.keyId, toHex(key.publicKey)]];
        }),
      ),
    ),
  };
}
