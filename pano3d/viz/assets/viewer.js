"use strict";
// Point viewer on a 2D canvas: software projection with a depth buffer, so it needs neither WebGL nor the network.
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const pack = ([red, green, blue]) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
  const packAll = (rgb) => {
    const packed = new Uint32Array(rgb.length / 3);
    for (let i = 0; i < packed.length; i++) packed[i] = pack([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]]);
    return packed;
  };
  const css = ([red, green, blue]) => `rgb(${red},${green},${blue})`;
  const MODES = ["image", "classes", "segments", "confidence"];
  const BACKGROUND = 0xff1c1816;

  function unpack(scene) {
    const grid = new Uint16Array(bytes(scene.position).buffer), position = new Float32Array(grid.length);
    for (let i = 0; i < grid.length; i++) {
      const axis = i % 3;
      position[i] = scene.low[axis] - scene.center[axis] + (grid[i] / 65535) * scene.extent[axis];
    }
    const ramp = bytes(scene.ramp);
    return {
      ...scene,
      position,
      segment: new Uint16Array(bytes(scene.segment).buffer),
      confidence: bytes(scene.confidence),
      image: packAll(bytes(scene.image)),
      rampColors: packAll(ramp),
      rampStops: [0, 51, 102, 153, 204, 255].map((at) => css(ramp.slice(3 * at, 3 * at + 3))),
      segmentColors: Uint32Array.from(scene.segments, (s) => pack(s.color)),
      classColors: Uint32Array.from(scene.segments, (s) => pack(s.class_color)),
      visible: new Uint8Array(scene.segments.length).fill(1),
    };
  }

  function open(root) {
    const packed = JSON.parse(root.querySelector("script").textContent), opened = new Map();
    const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
    const bar = root.querySelector("div"), panel = root.querySelector("aside");
    let scene, mode = "image", yaw = 0.7, pitch = 0.55, zoom = 1, pan = [0, 0], queued = false;
    let least = 0, showsCameras = true, image = null, pixels = null, depth = null;

    const redraw = () => {
      if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); }
    };
    const choose = (number) => {
      if (!opened.has(number)) opened.set(number, unpack(packed[number]));
      scene = opened.get(number);
      list();
      redraw();
    };

    function draw() {
      const started = performance.now();
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
      const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
      if (!image || canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
        image = context.createImageData(width, height);
        pixels = new Uint32Array(image.data.buffer);
        depth = new Float32Array(width * height);
      }
      pixels.fill(BACKGROUND);
      depth.fill(Infinity);
      const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
      const radius = scene.radius || 1, distance = (2 * radius) / zoom, focal = 0.95 * Math.min(width, height);
      const middleX = width / 2 + pan[0] * ratio, middleY = height / 2 + pan[1] * ratio, nearest = 0.02 * radius;
      const dot = Math.max(1, Math.min(12, (scene.spacing * focal) / distance));
      const { position, segment, confidence, visible } = scene, count = segment.length;
      const each = mode === "image" ? scene.image : null;
      const ranked = mode === "confidence" ? scene.rampColors : null;
      const table = mode === "classes" ? scene.classColors : scene.segmentColors;
      let drawn = 0;
      for (let i = 0, at = 0; i < count; i++, at += 3) {
        if (confidence[i] < least || !visible[segment[i]]) continue;
        const x = position[at], y = position[at + 1], z = position[at + 2];
        const ahead = sy * x + cy * y, near = distance + cp * ahead - sp * z;
        if (near < nearest) continue;
        drawn++;
        const scale = focal / near;
        const u = middleX + (cy * x - sy * y) * scale, v = middleY - (sp * ahead + cp * z) * scale;
        const side = (dot * distance) / near;
        const color = each ? each[i] : ranked ? ranked[confidence[i]] : table[segment[i]];
        if (side < 1.5) {
          if (u < 0 || v < 0 || u >= width || v >= height) continue;
          const pixel = (v | 0) * width + (u | 0);
          if (near < depth[pixel]) { depth[pixel] = near; pixels[pixel] = color; }
          continue;
        }
        const left = Math.max(0, Math.round(u - side / 2)), top = Math.max(0, Math.round(v - side / 2));
        const end = Math.min(width, Math.max(left + 1, Math.round(u + side / 2)));
        const bottom = Math.min(height, Math.max(top + 1, Math.round(v + side / 2)));
        for (let row = top; row < bottom; row++) {
          for (let pixel = row * width + left; pixel < row * width + end; pixel++) {
            if (near < depth[pixel]) { depth[pixel] = near; pixels[pixel] = color; }
          }
        }
      }
      context.putImageData(image, 0, 0);
      if (showsCameras) {
        const project = (corner) => {
          const [x, y, z] = corner.map((value, axis) => value - scene.center[axis]);
          const ahead = sy * x + cy * y, near = distance + cp * ahead - sp * z, scale = focal / near;
          return near < nearest ? null : [middleX + (cy * x - sy * y) * scale, middleY - (sp * ahead + cp * z) * scale];
        };
        context.strokeStyle = "#ffb454";
        context.lineWidth = ratio;
        context.beginPath();
        for (const frustum of scene.frusta) {
          const [eye, ...corners] = frustum.map(project);
          if (!eye || corners.includes(null)) continue;
          for (const corner of corners) { context.moveTo(...eye); context.lineTo(...corner); }
          context.moveTo(...corners[3]);
          for (const corner of corners) context.lineTo(...corner);
        }
        context.stroke();
      }
      // What a page around the viewer, or a test, may read.
      root.dataset.drawn = drawn;
      root.dataset.milliseconds = (performance.now() - started).toFixed(1);
    }

    const pointers = new Map();
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    const zoomTo = (value) => { zoom = Math.min(12, Math.max(0.3, value)); redraw(); };
    const turn = (across, down) => {
      yaw += across;
      pitch = Math.min(1.57, Math.max(-1.57, pitch + down));
      redraw();
    };
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      pointers.set(e.pointerId, [e.clientX, e.clientY]);
    });
    canvas.addEventListener("pointermove", (e) => {
      if (!pointers.has(e.pointerId)) return;
      const before = pointers.get(e.pointerId), dx = e.clientX - before[0], dy = e.clientY - before[1];
      const wide = pointers.size === 2 ? spread() : 0;
      pointers.set(e.pointerId, [e.clientX, e.clientY]);
      if (pointers.size === 2) {
        pan = [pan[0] + dx / 2, pan[1] + dy / 2];
        zoomTo((zoom * spread()) / (wide || 1));
      } else if (e.shiftKey || e.buttons === 2) {
        pan = [pan[0] + dx, pan[1] + dy];
        redraw();
      } else {
        turn(dx * 0.008, dy * 0.008);
      }
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => pointers.delete(e.pointerId));
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      zoomTo(zoom * Math.exp(-e.deltaY * 0.001));
    }, { passive: false });
    const KEYS = {
      ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0), ArrowUp: () => turn(0, -0.1),
      ArrowDown: () => turn(0, 0.1), "+": () => zoomTo(zoom * 1.15), "-": () => zoomTo(zoom / 1.15),
    };
    canvas.addEventListener("keydown", (e) => {
      if (KEYS[e.key]) { e.preventDefault(); KEYS[e.key](); }
    });

    const element = (name, parts = [], values = {}) => {
      const made = Object.assign(document.createElement(name), values);
      made.append(...parts);
      return made;
    };
    const swatch = (color) => {
      const made = element("i");
      made.style.background = css(color);
      return made;
    };
    const check = (checked, color, text, onchange) => {
      const box = element("input", [], { type: "checkbox", checked });
      box.onchange = () => { onchange(box.checked); redraw(); };
      return element("label", [box, ...(color ? [swatch(color)] : []), element("span", [text])]);
    };

    // The panel: every object with a box, in the colours of the mode; one box per class where colours mean classes.
    function list() {
      if (!panel) return;
      const every = (shown) => () => { scene.visible.fill(shown); list(); redraw(); };
      const all = element("button", ["all"]), none = element("button", ["none"]);
      all.onclick = every(1);
      none.onclick = every(0);
      const rows = [element("p", [all, " ", none])];
      if (mode === "confidence") {
        const ramp = element("div", [], { className: "ramp" });
        ramp.style.background = `linear-gradient(90deg, ${scene.rampStops})`;
        rows.push(ramp, element("div", [element("span", ["least sure"]), element("span", ["surest"])], { className: "ends" }));
      }
      const groups = new Map();
      scene.segments.forEach((segment, index) => {
        const key = mode === "classes" ? segment.class : index;
        const group = groups.get(key) || { members: [], name: mode === "classes" ? segment.class : segment.name };
        group.members.push(index);
        group.color = mode === "classes" ? segment.class_color : mode === "confidence" ? null : segment.color;
        groups.set(key, group);
      });
      for (const { members, name, color } of groups.values()) {
        const shown = members.some((index) => scene.visible[index]);
        rows.push(check(shown, color, name, (on) => members.forEach((index) => { scene.visible[index] = on ? 1 : 0; })));
      }
      panel.replaceChildren(...rows);
    }

    if (packed.length > 1) {
      const choice = element("select", packed.map((s, i) => new Option(s.name, i)));
      choice.setAttribute("aria-label", "scene");
      choice.onchange = () => choose(Number(choice.value));
      bar.append(choice);
    }
    const buttons = MODES.map((name) => {
      const button = element("button", [name]);
      button.onclick = () => { mode = name; press(); list(); redraw(); };
      bar.append(button);
      return button;
    });
    const press = () => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.textContent === mode)));
    const slider = element("input", [], { type: "range", min: 0, max: 255, value: 0 }), told = element("output");
    slider.oninput = () => {
      least = Number(slider.value);
      told.textContent = least ? `hides ${Math.round((100 * least) / 255)} %` : "";
      redraw();
    };
    bar.append(element("label", ["least sure", slider, told]));
    if (packed.some((s) => s.frusta.length)) bar.append(check(true, null, "cameras", (on) => { showsCameras = on; }));
    press();
    choose(0);
    new ResizeObserver(redraw).observe(canvas);
  }

  document.querySelectorAll(".viewer").forEach(open);
})();
