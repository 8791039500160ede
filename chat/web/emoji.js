// Emoji by the names that GitHub, Slack and others know them by: those that people use most. All of
// Unicode's 1,900, as in PyPI's `emoji`, would be 15 kB; the others can be typed by the system's own
// keyboard. The fonts are the reader's. It is loaded when somebody first names one.

const TABLE = `
grinning 😀 smiley 😃 smile 😄 grin 😁 laughing 😆 sweat_smile 😅 rofl 🤣 joy 😂 slight_smile 🙂
upside_down 🙃 wink 😉 blush 😊 innocent 😇 heart_eyes 😍 star_struck 🤩 kissing_heart 😘 yum 😋
tongue 😛 stuck_out_tongue_winking_eye 😜 hugs 🤗 shushing 🤫 thinking 🤔 zipper_mouth 🤐
raised_eyebrow 🤨 neutral_face 😐 expressionless 😑 smirk 😏 unamused 😒 roll_eyes 🙄 grimacing 😬
relieved 😌 pensive 😔 sleepy 😪 sleeping 😴 mask 😷 sick 🤒 nauseated 🤢 sneezing 🤧 hot 🥵 cold 🥶
dizzy_face 😵 exploding_head 🤯 cowboy 🤠 partying 🥳 sunglasses 😎 nerd 🤓 confused 😕 worried 😟
open_mouth 😮 astonished 😲 flushed 😳 pleading 🥺 fearful 😨 cry 😢 sob 😭 scream 😱 disappointed 😞
sweat 😓 tired 😫 yawning 🥱 triumph 😤 rage 😡 angry 😠 skull 💀 poop 💩 clown 🤡 ghost 👻 alien 👽
robot 🤖 see_no_evil 🙈 hear_no_evil 🙉 speak_no_evil 🙊 wave 👋 raised_hand ✋ ok_hand 👌 v ✌️
crossed_fingers 🤞 metal 🤘 point_left 👈 point_right 👉 point_up 👆 point_down 👇 +1 👍 thumbsup 👍
-1 👎 thumbsdown 👎 fist ✊ punch 👊 clap 👏 raised_hands 🙌 handshake 🤝 pray 🙏 muscle 💪 brain 🧠
eyes 👀 facepalm 🤦 shrug 🤷 bow 🙇 runner 🏃 dancer 💃 baby 👶 cat 🐱 dog 🐶 fox 🦊 bear 🐻 panda 🐼
pig 🐷 frog 🐸 monkey 🐒 chicken 🐔 penguin 🐧 bird 🐦 owl 🦉 turtle 🐢 snake 🐍 whale 🐳 fish 🐟
octopus 🐙 snail 🐌 butterfly 🦋 bug 🐛 bee 🐝 unicorn 🦄 rose 🌹 sunflower 🌻 tree 🌳 cactus 🌵
four_leaf_clover 🍀 apple 🍎 banana 🍌 pizza 🍕 burger 🍔 fries 🍟 cookie 🍪 cake 🍰 birthday 🎂
coffee ☕ tea 🍵 beer 🍺 beers 🍻 wine 🍷 champagne 🍾 sun ☀️ cloud ☁️ rain 🌧️ zap ⚡ snowflake ❄️
rainbow 🌈 fire 🔥 ocean 🌊 moon 🌙 star ⭐ sparkles ✨ boom 💥 tada 🎉 balloon 🎈 gift 🎁 trophy 🏆
medal 🏅 soccer ⚽ dart 🎯 game 🎮 musical_note 🎵 headphones 🎧 guitar 🎸 car 🚗 bike 🚲 train 🚆
airplane ✈️ rocket 🚀 ship 🚢 house 🏠 office 🏢 world 🌍 phone 📱 computer 💻 keyboard ⌨️ camera 📷
bulb 💡 book 📖 memo 📝 calendar 📅 chart 📈 pushpin 📌 paperclip 📎 lock 🔒 key 🔑 hammer 🔨
wrench 🔧 gear ⚙️ mag 🔍 bell 🔔 hourglass ⌛ watch ⌚ money 💰 email 📧 package 📦 wastebasket 🗑️
heart ❤️ orange_heart 🧡 yellow_heart 💛 green_heart 💚 blue_heart 💙 purple_heart 💜 broken_heart 💔
100 💯 check ✅ x ❌ warning ⚠️ question ❓ exclamation ❗ no_entry ⛔ construction 🚧 recycle ♻️
speech 💬 zzz 💤 white_flag 🏳️ pirate 🏴‍☠️ rainbow_flag 🏳️‍🌈`;

const words = TABLE.trim().split(/\s+/);
/** @type {Map<string, string>} */
const emoji = new Map();
for (let n = 0; n < words.length; n += 2) emoji.set(words[n], words[n + 1]);

/** @param {string} name */
export const emojiNamed = (name) => emoji.get(name);

/**
 * @param {string} start of a name
 * @param {number} most
 */
export function emojiLike(start, most) {
  return [...emoji].filter(([name]) => name.startsWith(start)).slice(0, most);
}
