// Returns what the client's cryptography makes of given inputs. `base` is the URL of the modules.
async ({ base, vector, response, frames, caching }) => {
  const { toHex, fromHex } = await import(`${base}/bytes.js`);
  const { dhkem } = await import(`${base}/dhkem.js`);
  const { setupSender } = await import(`${base}/hpke.js`);
  const { responseCipher } = await import(`${base}/response_cipher.js`);
  const { lifetimeOf } = await import(`${base}/server_key.js`);
  const { framesOf } = await import(`${base}/frames.js`);

  const messageOf = (error) => error.message || error.name;

  // RFC 8410: the bytes before the 32 of an X25519 private key in PKCS #8.
  const pkcs8 = fromHex(`302e020100300506032b656e04220420${vector.skEm}`);
  const ephemeral = {
    privateKey: await crypto.subtle.importKey("pkcs8", pkcs8, { name: "X25519" }, false, ["deriveBits"]),
    publicKey: await crypto.subtle.importKey("raw", fromHex(vector.pkEm), { name: "X25519" }, true, []),
  };
  const sender = await setupSender(dhkem(ephemeral), fromHex(vector.pkRm), fromHex(vector.info));
  const sealed = {};
  const wanted = new Map(vector.encryptions.map((encryption) => [encryption.sequence_number, encryption]));
  for (let number = 0; number <= Math.max(...wanted.keys()); number++) {
    const { pt = "", aad = "" } = wanted.get(number) ?? {};
    const ciphertext = toHex(await sender.seal(fromHex(pt), fromHex(aad)));
    if (wanted.has(number)) sealed[number] = ciphertext;
  }
  const exported = [];
  for (const { exporter_context, L } of vector.exports) {
    exported.push(toHex(await sender.exportSecret(fromHex(exporter_context), L)));
  }

  const responseKeys = [fromHex(response.secret), fromHex(response.enc), fromHex(response.nonce)];
  const cipher = await responseCipher(...responseKeys);
  const opened = [];
  for (const ciphertext of response.ciphertexts) opened.push(toHex(await cipher.open(fromHex(ciphertext))));
  const outOfOrder = await (await responseCipher(...responseKeys)).open(fromHex(response.ciphertexts[1])).catch(messageOf);

  const read = {};
  for (const [name, pieces] of Object.entries(frames)) {
    const stream = new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(fromHex(piece));
        controller.close();
      },
    });
    const found = [];
    let error = null;
    try {
      for await (const ciphertext of framesOf(stream)) found.push(toHex(ciphertext));
    } catch (caught) {
      error = messageOf(caught);
    }
    read[name] = { found, error };
  }

  const smallOrder = await setupSender(dhkem(), new Uint8Array(32), new Uint8Array()).then(() => "accepted", messageOf);
  return {
    encapsulatedKey: toHex(sender.encapsulatedKey),
    sealed,
    exported,
    opened,
    outOfOrder: typeof outOfOrder,
    read,
    smallOrder,
    lifetimes: caching.map((headers) => lifetimeOf(new Headers(headers))),
  };
}
